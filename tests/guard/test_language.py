"""Turns in other languages are noticed, English ones are not taken for them."""

# ruff: noqa: RUF001

import csv
import time

import pytest

from pal.data.esconv import load_esconv
from pal.guard import GuardSettings, load_guard
from pal.guard.guard import MAX_CHARACTERS, WINDOW
from pal.guard.language import LanguageDetector, is_english
from pal.guard.lexicon import load_lexicon

DETECTOR = LanguageDetector()

FOREIGN = {
    "Spanish": ["Hoy no puedo más.", "nadie me entiende", "Tengo mucho miedo", "Ayuda"],
    "Portuguese": ["Não consigo dormir.", "estou tao cansada", "Preciso de ajuda", "Tudo é triste"],
    "French": ["Je suis épuisée.", "personne ne m'écoute", "J'ai tellement peur", "tout est foutu"],
    "German": ["Ich weine jeden Tag.", "mir fehlt die Kraft für alles", "Niemand hört zu", "Hilfe"],
    "Italian": [
        "Sono così sola.",
        "nessuno mi ascolta",
        "Ho bisogno di aiuto",
        "Non dormo mai più",
    ],
    "Dutch": [
        "Ik ben zo moe.",
        "niemand luistert naar mij",
        "Ik huil elke dag",
        "ik kan niet slapen",
    ],
    "Polish": ["Nie daję rady.", "jestem bardzo zmeczona", "Boję się wszystkiego", "Pomóż mi"],
    "Turkish": ["Çok yalnızım.", "kimse beni anlamiyor", "Artık dayanamıyorum", "yardım et"],
    "Romanian": [
        "Nu mai am nimic.",
        "sunt obosita si singura",
        "Mi-e frică",
        "Am nevoie de ajutor",
    ],
    "Swedish": ["Jag är ledsen.", "ingen forstar mig alls", "Jag orkar ingenting"],
    "Danish": ["Jeg er så træt.", "ingen kan hjælpe mig", "Jeg græder altid"],
    "Finnish": ["Olen surullinen.", "kukaan ei auta minua"],
    "Hungarian": ["Nagyon félek.", "senki sem segít"],
    "Czech": ["Jsem unavený.", "nikdo me nema rad, bojim se"],
    "Croatian": ["Ne mogu spavati.", "nitko me ne čuje"],
    "Indonesian": ["Aku capek sekali.", "tidak ada yang peduli"],
    "Vietnamese": ["Tôi rất buồn.", "không ai hiểu tôi"],
    "other alphabets": [
        "Мне страшно.",
        "Ничего",
        "Κουράστηκα",
        "أنا حزين",
        "疲れた",
        "救命",
        "도와줘",
    ],
}

ENGLISH = [
    "no", "No.", "Ok", "Si", "si si", "Die Hard", "I will die", "do so", "me too", "am an", "on me",
    "adios", "Adios amigo", "Hola!", "ciao bella", "Merci beaucoup", "Danke schön", "gracias",
    "café", "My fiancé's resumé", "Crème brûlée", "deja vu", "Déjà vu!", "C'est la vie", "naïve",
    "jalapeños", "que sera sera", "mi casa es su casa", "hasta la vista, baby", "Feliz Navidad",
    "José", "Zoë and Chloë", "Müller", "Łukasz Żak", "São Paulo", "Beyoncé", "Pokémon", "Björk",
    "Los Angeles", "Las Vegas", "Les Misérables", "La La Land", "Das Boot", "El Paso", "Moët",
    "Viva la vida", "La dolce vita", "Kung Fu Panda", "Kama Sutra", "Hakuna matata", "carpe diem",
    "Venn diagram", "lol", "ugh", "nah", "tbh idk", "", "12", ":)", "¯\\_(ツ)_/¯", "ಠ_ಠ",
    "muy tired of it", "She said te quiero and I cried", "My name is Siobhán, from Málaga",
    "I said: nicht gut", "We watched El Niño news", "pain, war and gift", "also so fast",
]  # fmt: skip

WISHES = [
    "Solo quiero morirme.", "ya no quiero vivir", "No, quiero morir.", "Pienso en suicidarme",
    "Eu só quero morrer", "não quero viver mais", "Vou me matar", "J'ai envie de mourir.",
    "je veux plus vivre", "Je pense à me suicider", "Ich will sterben!",
    "ICH WILL NICHT MEHR LEBEN",
    "Ich möchte mich umbringen", "Ich wünschte, ich wäre tot", "voglio solo morire",
    "Non voglio piu vivere", "Mi ammazzo", "Ik wil sterven", "Ik wil echt niet meer leven",
    "Chcę już umrzeć", "nie chce zyc", "Zabiję się dzisiaj", "ölmek istiyorum artık",
    "YAŞAMAK İSTEMİYORUM", "intihar edeceğim", "Vreau să mă sinucid", "nu mai vreau sa traiesc",
    "хочу умереть", "Я больше не хочу жить", "Я убью себя",
]  # fmt: skip

NO_WISHES = [
    "No quiero morir.", "No quiero vivir con él.", "Me muero de risa", "Não quero morrer",
    "Não quero viver aqui", "Je ne veux pas mourir", "Je ne veux plus vivre avec elle",
    "Ich will nicht sterben", "Ich will leben", "Ich will nicht mehr so viel geben",
    "Non voglio morire", "Non voglio vivere qui", "Ik wil niet dood", "Ik wil leven",
    "Nie chcę umrzeć", "Chcę żyć", "Ölmek istemiyorum", "Burada yaşamak istemiyorum",
    "Nu vreau să mor", "Vreau să trăiesc", "Я не хочу умирать", "Хочу жить",
    "I will die on this hill", "Die Hard", "no", "me mate",
]  # fmt: skip


@pytest.mark.parametrize("language", FOREIGN)
def test_turns_in_other_languages_are_noticed_though_they_are_short(language):
    assert [text for text in FOREIGN[language] if is_english(text)] == []


@pytest.mark.parametrize("text", ENGLISH)
def test_english_with_names_and_loan_words_is_no_other_language(text):
    assert is_english(text)
    assert DETECTOR.detect([text])[0].level == 0


@pytest.mark.parametrize("text", WISHES)
def test_plain_wishes_to_die_are_a_crisis_in_ten_languages(text):
    (found,) = DETECTOR.detect([text])
    assert found.level == 2
    assert "other_language" in found.categories


@pytest.mark.parametrize("text", NO_WISHES)
def test_denial_and_where_to_live_are_no_crisis(text):
    assert DETECTOR.detect([text])[0].level < 2


def test_every_word_is_in_one_list_and_as_it_is_read():
    from pal.guard.language import _words
    from pal.guard.normalise import plain_letters

    known = _words()
    lists = [known.sure, known.shared, known.english, known.both]
    assert all(word.isalpha() and plain_letters(word) == word for one in lists for word in one)
    assert all(len(word) >= 4 for word in known.sure)
    for place, one in enumerate(lists):
        for other in lists[place + 1 :]:
            assert not one & other


def test_the_guard_says_that_it_reads_english_only_and_asks():
    guard = load_guard(GuardSettings(country="DE"))
    wish = guard.review(["Hallo", "Ich will einfach nicht mehr leben."])
    assert (wish.action, wish.level, wish.pinned) == ("fixed", 2, 2)
    assert "only read English" in wish.help
    short = guard.review(["Mir geht es schlecht"])
    assert (short.action, short.level) == ("reply_with_help", 1)
    assert guard.review(["Danke!"]).action == "reply"


def test_real_english_is_never_taken_for_another_language(shared_data):
    turns = [
        turn["text"]
        for split in ("train", "validation", "test")
        for row in load_esconv(str(shared_data / "esconv"), split)
        for turn in row["dialog"]
    ]
    assert len(turns) > 38_000
    assert [text for text in turns if not is_english(text)] == []
    assert not any(found.level for found in load_lexicon("other_languages.yaml").detect(turns))


def test_the_spanish_turns_of_a_real_corpus_are_the_only_ones_that_are_noticed(shared_data):
    file = shared_data / "personachat" / "Synthetic-Persona-Chat_valid.csv"
    if not file.is_file():
        pytest.skip("the corpus is not beside this checkout")
    with file.open(encoding="utf-8", newline="") as lines:
        turns = [turn for row in csv.reader(lines) for turn in row[2].split("\n") if turn]
    noticed = [text.partition(": ")[2] for text in turns if not is_english(text.partition(": ")[2])]
    assert len(turns) > 27_000
    assert len(noticed) == 7
    assert all(set(text) & set("¡áéíóú") for text in noticed)


@pytest.mark.parametrize(
    "odd", ["quiero ", "no quiero ", "a", "ş", "жить не ", "chce juz ", "da ", ","]
)
def test_a_long_turn_takes_time_in_proportion(odd):
    long = (odd * WINDOW * MAX_CHARACTERS)[: WINDOW * MAX_CHARACTERS] + "z"
    start = time.process_time()
    DETECTOR.detect([long])
    assert time.process_time() - start < 4

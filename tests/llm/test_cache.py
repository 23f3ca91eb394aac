import contextlib
import multiprocessing
import sqlite3
import stat
import time

import pytest

from pal.core.errors import DataError, OutputError
from pal.llm.base import EndpointFacts, Reply, Request
from pal.llm.cache import TABLES, Cache, answer_key, request_key
from pal.llm.origin import origin_of
from pal.llm.settings import LlmSettings


def request(number, **more):
    return Request(str(number), (("user", f"statement {number}"),), **more)


def origin(**more):
    return origin_of(LlmSettings(**{"model": "m", "base_url": "http://localhost:1/v1", **more}))


HERE = origin()


def test_the_request_key_is_of_all_that_is_asked():
    first = request_key("m", request(1, schema={"a": 1, "b": 2}))
    # Never to change: results of batch files are found by it.
    assert first.hex() == "358dbdece18e4c7687b553a0b7c8b854"
    same = Request("other id", (("user", "statement 1"),), {"b": 2, "a": 1}, "other name")
    assert request_key("m", same) == first
    others = [
        request_key("n", request(1, schema={"a": 1, "b": 2})),
        *(
            request_key("m", request(1, **{"schema": {"a": 1, "b": 2}, **more}))
            for more in ({"temperature": 0.5}, {"max_tokens": 7}, {"seed": 1}, {"schema": None})
        ),
        request_key("m", Request("1", (("system", "statement 1"),), {"a": 1, "b": 2})),
    ]
    assert len({first, *others}) == 7


def test_an_answer_is_of_one_origin(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    local = {"backend": "transformers", "base_url": None}
    folder = {**local, "model": str(tmp_path / "model")}
    first = origin(**folder)
    (tmp_path / "model" / "config.json").write_text('{"a": 1}')
    origins = [
        HERE, origin(base_url="http://localhost:2/v1"), origin(base_url="https://localhost:1/v1"),
        origin(base_url="http://localhost:1/v2"), origin(model="n"), origin(body={"top_k": 1}),
        origin(**local), origin_of(LlmSettings(model="m", **local), "bfloat16"),
        first, origin(**folder),
    ]  # fmt: skip
    assert len({answer_key(one, request(1)) for one in origins}) == len(origins)
    alike = [origin(base_url="http://LOCALHOST:1/v1/"), origin(max_attempts=1, timeout=3)]
    assert {answer_key(one, request(1)) for one in alike} == {answer_key(HERE, request(1))}


def test_a_secret_among_further_fields_is_not_written_down():
    found = origin(body={"api_key": "sk-hidden"})
    assert "hidden" not in found.text + found.name
    assert found.digest != origin(body={"api_key": "sk-other"}).digest


def test_answers_and_final_failures_come_back(tmp_path):
    replies = {
        b"1": Reply({"answer": [1, "ü", None]}, seconds=0.5, tokens_out=4),
        b"2": Reply("text", seconds=1.5, tokens_out=6),
        b"3": Reply(None, "refused"),
        b"4": Reply(None),
    }
    cache = Cache(tmp_path / "folder" / "c.sqlite")
    cache.write(HERE, replies.items())
    again = Cache(tmp_path / "folder" / "c.sqlite")
    assert again.read([b"9", *replies]) == {k: (r.value, r.reason) for k, r in replies.items()}
    assert again.measured(HERE) == (2, 1.0, 5.0)
    assert again.measured(origin(model="n")) == (0, None, None)


def test_what_is_found_out_of_an_endpoint_stays_with_it(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    assert cache.endpoint(HERE) == EndpointFacts(None, True)
    cache.record_endpoint(HERE, EndpointFacts("text", False))
    assert Cache(tmp_path / "c.sqlite").endpoint(HERE) == EndpointFacts("text", False)
    assert cache.endpoint(origin(base_url="http://localhost:2/v1")) == EndpointFacts(None, True)


def test_only_the_user_may_read_answers(tmp_path):
    path = tmp_path / "c.sqlite"
    sqlite3.connect(path).execute("CREATE TABLE x (y)").connection.close()
    path.chmod(0o644)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"c.sqlite{suffix}").touch(mode=0o644)
    cache = Cache(path)
    cache.write(HERE, [(b"1", Reply("my text"))])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert {"c.sqlite", "c.sqlite-wal", "c.sqlite-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def old_cache(path, *values):
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE answers (key BLOB PRIMARY KEY, model TEXT NOT NULL, value TEXT, reason TEXT, "
        "rung TEXT, seconds REAL, tokens_in INTEGER, tokens_out INTEGER) WITHOUT ROWID"
    )
    for number, value in enumerate(values):
        row = (request_key("m", request(number)), "m", value)
        database.execute("INSERT INTO answers (key, model, value) VALUES (?, ?, ?)", row)
    database.commit()
    database.close()


def test_answers_that_name_no_endpoint_are_trusted_on_request_alone(tmp_path):
    old_cache(tmp_path / "old.sqlite", '"one"')
    with pytest.raises(DataError, match=r"1 answers of version 0\.1.*trust_old_answers=true"):
        Cache(tmp_path / "old.sqlite")
    cache = Cache(tmp_path / "old.sqlite", trust_old_answers=True)
    assert cache.read([answer_key(HERE, request(0))]) == {}
    assert cache.read_old([request_key("m", request(0))]) == {
        request_key("m", request(0)): ("one", None)
    }
    old_cache(tmp_path / "empty.sqlite")
    assert not Cache(tmp_path / "empty.sqlite").reads_old


def test_what_cannot_be_used_is_one_line(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        Cache(tmp_path)
    cache = Cache(tmp_path / "c.sqlite")
    cache.write(HERE, [(bytes([n]), Reply("text " * 50)) for n in range(200)])
    cache.close()
    data = bytearray((tmp_path / "c.sqlite").read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    (tmp_path / "c.sqlite").write_bytes(data)
    with pytest.raises((DataError, OutputError)) as caught:
        Cache(tmp_path / "c.sqlite").read([bytes([n]) for n in range(200)])
    assert "\n" not in str(caught.value)


def write_many(path, start):
    cache = Cache(path)
    for number in range(start, start + 200):
        cache.write(HERE, [(answer_key(HERE, request(number)), Reply(number))])


def test_several_processes_write_at_once(tmp_path):
    path = tmp_path / "c.sqlite"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_many, args=(path, 150 * n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    keys = [answer_key(HERE, request(number)) for number in range(500)]
    found = Cache(path).read(keys)
    assert [found[key][0] for key in keys] == list(range(500))


def test_many_answers_are_read_fast(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    requests = [request(number) for number in range(20_000)]
    keys = [answer_key(HERE, r) for r in requests]
    cache.write(HERE, ((key, Reply({"answer": 3})) for key in keys))
    started = time.monotonic()
    found = cache.read(keys)
    assert len(found) == 20_000
    assert time.monotonic() - started < 5  # 470,000 in a minute would be 2.6 s


def test_an_answer_that_a_disk_changed_is_asked_for_again(tmp_path, caplog):
    keys = [answer_key(HERE, request(n)) for n in range(3)]
    cache = Cache(tmp_path / "c.sqlite")
    cache.write(HERE, [(key, Reply({"answer": 4}, None)) for key in keys])
    cache.close()
    database = sqlite3.connect(tmp_path / "c.sqlite")
    database.execute("UPDATE replies SET value = '{\"answer\": 5}' WHERE key = ?", (keys[0],))
    database.execute("UPDATE replies SET reason = 'refused' WHERE key = ?", (keys[1],))
    database.commit()
    database.close()
    cache = Cache(tmp_path / "c.sqlite")
    assert cache.read(keys) == {keys[2]: ({"answer": 4}, None)}
    assert "damaged answers, asked for again: 2" in caplog.text


def test_answers_of_a_file_without_checksums_are_read(tmp_path):
    database = sqlite3.connect(tmp_path / "c.sqlite")
    database.executescript(TABLES.replace(", checksum INTEGER", ""))
    key = answer_key(HERE, request(1))
    database.execute("INSERT INTO replies (key, origin, value) VALUES (?, 1, '4')", (key,))
    database.commit()
    database.close()
    cache = Cache(tmp_path / "c.sqlite")
    assert cache.read([key]) == {key: (4, None)}
    other = answer_key(HERE, request(2))
    cache.write(HERE, [(other, Reply(5, None))])
    assert cache.read([key, other]) == {key: (4, None), other: (5, None)}


def test_what_a_damaged_file_holds_is_not_quoted(tmp_path):
    key = answer_key(HERE, request(1))
    cache = Cache(tmp_path / "c.sqlite")
    cache.write(HERE, [(key, Reply("a text of a person", None))])
    cache.close()
    database = sqlite3.connect(tmp_path / "c.sqlite")
    database.execute("UPDATE replies SET value = CAST(value || x'ff0a' AS TEXT)")
    database.commit()
    database.close()
    with pytest.raises(OutputError, match="Could not decode") as caught:
        Cache(tmp_path / "c.sqlite").read([key])
    assert "person" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_schema_that_is_no_text_is_one_line(tmp_path):
    """SQLite quotes it, and Python cannot decode the quotation."""
    Cache(tmp_path / "c.sqlite").close()
    path = tmp_path / "c.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    contents = path.read_bytes()
    path.write_bytes(
        contents.replace(b"CREATE TABLE origins", b"CREATE \xa3\xa3\xa3\xa3\xa3 origins")
    )
    with pytest.raises((DataError, OutputError)) as caught:
        Cache(path)
    assert "\n" not in str(caught.value)


def test_a_form_of_answers_that_does_not_exist_is_not_known(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    cache.record_endpoint(HERE, EndpointFacts("json_schexa", True))
    assert cache.endpoint(HERE) == EndpointFacts()

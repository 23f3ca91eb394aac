import multiprocessing
import time

from pal.llm.base import Reply, Request
from pal.llm.cache import Cache, key_of


def request(number, **more):
    return Request(str(number), (("user", f"statement {number}"),), **more)


def test_the_key_is_of_what_decides_the_answer():
    first = key_of("m", request(1, schema={"a": 1, "b": 2}))
    assert (
        first.hex() == "358dbdece18e4c7687b553a0b7c8b854"
    )  # never to change: answers survive changes of the code
    same = Request("other id", (("user", "statement 1"),), {"b": 2, "a": 1}, "other name")
    assert key_of("m", same) == first
    others = [
        key_of("n", request(1, schema={"a": 1, "b": 2})),
        *(
            key_of("m", request(1, **{"schema": {"a": 1, "b": 2}, **more}))
            for more in ({"temperature": 0.5}, {"max_tokens": 7}, {"seed": 1}, {"schema": None})
        ),
        key_of("m", Request("1", (("system", "statement 1"),), {"a": 1, "b": 2})),
    ]
    assert len({first, *others}) == 7


def test_answers_and_final_failures_come_back(tmp_path):
    replies = {
        b"1": Reply({"answer": [1, "ü", None]}, seconds=0.5, tokens_out=4),
        b"2": Reply("text", seconds=1.5, tokens_out=6),
        b"3": Reply(None, "refused"),
        b"4": Reply(None),
    }
    cache = Cache(tmp_path / "folder" / "c.sqlite")
    cache.write("m", replies.items())
    again = Cache(tmp_path / "folder" / "c.sqlite")
    assert again.read([b"9", *replies]) == {k: (r.value, r.reason) for k, r in replies.items()}
    assert again.measured("m") == (2, 1.0, 5.0)
    assert again.measured("n") == (0, None, None)


def write_many(path, start):
    cache = Cache(path)
    for number in range(start, start + 200):
        cache.write("m", [(key_of("m", request(number)), Reply(number))])


def test_several_processes_write_at_once(tmp_path):
    path = tmp_path / "c.sqlite"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_many, args=(path, 150 * n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    keys = [key_of("m", request(number)) for number in range(500)]
    found = Cache(path).read(keys)
    assert [found[key][0] for key in keys] == list(range(500))


def test_many_answers_are_read_fast(tmp_path):
    cache = Cache(tmp_path / "c.sqlite")
    requests = [request(number) for number in range(20_000)]
    keys = [key_of("m", r) for r in requests]
    cache.write("m", ((key, Reply({"answer": 3})) for key in keys))
    started = time.monotonic()
    found = cache.read(keys)
    assert len(found) == 20_000
    assert time.monotonic() - started < 5  # 470,000 in a minute would be 2.6 s

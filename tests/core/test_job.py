"""One job: locked, journalled, published with its record, and left clean."""

import json
import os
import stat
import weakref

import pytest

from pal.commands import all_settings
from pal.core.errors import OutputError
from pal.core.files import atomic_writer, write_json, write_jsonl
from pal.core.job import Job, output_lock, record_path
from pal.core.windows import Window

GenerateSettings = all_settings()["generate"]


class State:
    """Stands in for accelerate's state: one process."""

    is_main_process, process_index, num_processes = True, 0, 1

    def wait_for_everyone(self):
        pass


def job(output, **settings):
    return Job("generate", GenerateSettings(**settings), output)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_an_output_is_made_once(tmp_path):
    output = tmp_path / "out.jsonl"
    one = job(output, seed=3)
    assert not one.is_finished()
    with one.claimed(processes=False):
        one.publish(lambda path: write_jsonl(path, [{"a": 1}]), samples=1)
    record = json.loads(record_path(output).read_text())
    assert (record["identity"], record["samples"]) == (one.identity, 1)
    lock = output.with_name(f".{output.name}.lock")
    lock.touch()  # of a process that was killed when all was written
    assert job(output, seed=3).is_finished()
    assert not lock.exists()
    assert not job(output, seed=3, overwrite=True).is_finished()
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "out.jsonl.run.json"]


def test_an_output_that_was_cut_is_not_taken_as_finished(tmp_path):
    output = tmp_path / "out.jsonl"
    one = job(output)
    one.beside.append(tmp_path / "out.md")
    one.beside[0].write_text("| a |")
    with one.claimed(processes=False):
        one.publish(lambda path: write_jsonl(path, [{"a": 1}, {"a": 2}]))
    whole = output.read_bytes()
    output.write_bytes(whole[:-5])
    with pytest.raises(OutputError, match="has 13 bytes, and had 18 when"):
        job(output).is_finished()
    output.write_bytes(whole)
    assert job(output).is_finished()
    one.beside[0].write_text("")
    with pytest.raises(OutputError, match=r"out\.md has 0 bytes, and had 5 when"):
        job(output).is_finished()
    output.unlink()
    assert not job(output).is_finished()


@pytest.mark.parametrize("contents", [
    '{"identity": "a', "", "[]x", '{"identity": 1}', "[]", '{"versions": []}', '{"versions": null}',
])  # fmt: skip
def test_a_damaged_record_is_told_with_what_to_do(tmp_path, contents):
    output = tmp_path / "out.jsonl"
    one = job(output)
    with one.claimed(processes=False):
        one.publish(lambda path: write_jsonl(path, [{"a": 1}]))
    record = record_path(output)
    record.write_text(contents)
    with pytest.raises(OutputError, match="overwrite=true") as caught:
        job(output).is_finished()
    assert str(output) in str(caught.value)
    assert "\n" not in str(caught.value)
    foreign = contents.startswith("{") and contents.endswith("}")
    assert ("which cannot be trusted" in str(caught.value)) != foreign
    assert not job(output, overwrite=True).is_finished()
    record.unlink()
    output.unlink()
    assert not job(output).is_finished()


def test_an_interrupt_before_the_first_batch_is_finished_promises_nothing(tmp_path):
    output, plan = tmp_path / "out.jsonl", [[0], [1]]

    def stop(batch):
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt) as stopped:
            job(output).run_batches(plan, stop, state=State(), description="x")
        assert str(stopped.value) == (
            f"interrupted; nothing of {output} was finished yet, run the same command again"
        )
    with pytest.raises(KeyboardInterrupt):
        job(output).run_batches(
            plan, lambda batch: stop(batch) if batch == [1] else [0], state=State(), description="x"
        )
    with pytest.raises(KeyboardInterrupt, match=r"^$"):  # an earlier run finished one
        job(output).run_batches(plan, stop, state=State(), description="x")


def test_the_bar_shows_the_tokens_of_the_batch_in_progress(tmp_path, capsys):
    one, shown = job(tmp_path / "out.jsonl"), []

    def work(batch):
        one._bar.mininterval = 0
        one.show_tokens(1200)
        shown.append(capsys.readouterr().err.rpartition("\r")[2])
        one._bar.mininterval = 1e9
        one.show_tokens(1300)  # too soon after it
        assert not capsys.readouterr().err
        one._bar.mininterval = 0
        return [0] * len(batch)

    one.show_tokens(1)  # there is no bar
    one.run_batches([[0, 1], [2]], work, state=State(), description="x")
    assert [("0/3" in shown[0], "1,200 tokens" in shown[0])] == [(True, True)]
    assert "2/3" in shown[1]
    after = capsys.readouterr().err
    assert "3/3" in after
    assert "tokens" not in after


def test_a_record_without_its_output_is_no_result(tmp_path):
    """A kill between the two leaves a job to continue."""
    output = tmp_path / "out.jsonl"
    one = job(output)

    def killed(path):
        raise KeyboardInterrupt

    output.write_text("old\n")
    with pytest.raises(KeyboardInterrupt):
        one.publish(killed)
    assert not output.exists()
    assert not job(output).is_finished()


def test_batches_are_done_once_whatever_interrupts(tmp_path):
    output, done = tmp_path / "out.jsonl", []

    def work(batch):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(list(batch))
        return [index * 10 for index in batch]

    plan = [[0, 3], [1], [2, 4]]
    with pytest.raises(KeyboardInterrupt, match=r"^$"):  # the program says what is kept
        job(output).run_batches(plan, work, state=State(), description="x")
    done.clear()
    found = job(output).run_batches(plan, work, state=State(), description="x")
    assert found == {index: index * 10 for index in range(5)}
    assert done == [[2, 4]]
    done.clear()
    with pytest.raises(OutputError, match=r"or versions \(differs: seed: .*, now 1\);"):
        job(output, seed=1).run_batches(plan, work, state=State(), description="x")
    with pytest.raises(KeyboardInterrupt):
        job(output, seed=1, overwrite=True).run_batches(plan, work, state=State(), description="x")
    assert done == [[0, 3], [1]]


def test_a_second_process_is_refused(tmp_path):
    with (
        output_lock(tmp_path / "x"), pytest.raises(OutputError, match="another process"),
        job(tmp_path / "x").claimed(processes=False),
    ):  # fmt: skip
        pass


def test_leftovers_of_killed_writers_are_swept(tmp_path):
    output = tmp_path / "out[1].jsonl"
    (tmp_path / ".out[1].jsonl.abc.tmp").write_text("half")
    (tmp_path / ".other.jsonl.abc.tmp").write_text("not ours")
    with job(output).claimed(processes=False):
        pass
    assert os.listdir(tmp_path) == [".other.jsonl.abc.tmp"]


def test_what_holds_texts_is_for_the_user_alone(tmp_path):
    old = os.umask(0o022)
    try:
        write_jsonl(tmp_path / "texts.jsonl", [{"text": "x"}])
        write_json(tmp_path / "figures.json", {"a": 1})
        with atomic_writer(tmp_path / "page.html", private=True) as handle:
            handle.write("x")
        journal = job(tmp_path / "out").journal()
        journal.append("0", "a text")
    finally:
        os.umask(old)
    assert mode(tmp_path / "texts.jsonl") == 0o600
    assert mode(tmp_path / "page.html") == 0o600
    assert mode(journal.path) == 0o600
    assert mode(tmp_path / "figures.json") == 0o644


def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(OutputError, match="cannot write"),
        job(tmp_path / "file" / "out").claimed(processes=False),
    ):
        pass
    with pytest.raises(OutputError, match="is a folder"):
        job(tmp_path).is_finished()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_input_is_never_replaced(tmp_path, overwrite):
    given, model = tmp_path / "given.jsonl", tmp_path / "model"
    given.write_text("{}\n")
    model.mkdir()
    (model / "config.json").write_text("{}")
    (tmp_path / "link.jsonl").symlink_to(given)
    read = {"input": str(given), "model": str(model), "overwrite": overwrite}
    for output, key in (
        (given, "input"), (tmp_path / "link.jsonl", "input"), (model, "model"),
        (model / "config.json", "model"),
    ):  # fmt: skip
        with pytest.raises(OutputError, match=f"{key}=.*would be lost; choose another output"):
            job(output, **read).is_finished()
    assert not job(model / "new.jsonl", **read).is_finished()


def test_an_output_of_its_own_beside_what_it_read_is_made_again(tmp_path):
    output = tmp_path / "out.jsonl"
    one = job(output, input=str(tmp_path), overwrite=True)
    with one.claimed(processes=False):
        one.publish(lambda path: write_jsonl(path, [{"a": 1}]))
    assert not job(output, input=str(tmp_path), overwrite=True).is_finished()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_file_is_never_replaced(tmp_path, overwrite):
    with pytest.raises(OutputError, match="a device, not a file"):
        job("/dev/null", overwrite=overwrite).is_finished()
    write_json(tmp_path / "run.json", {"command": "train"})  # a model, say
    with pytest.raises(OutputError, match="is a folder; give the name of a file in it"):
        job(tmp_path, overwrite=overwrite).is_finished()


@pytest.mark.parametrize("ending", ["csv", "TSV", "xlsx", "parquet"])
def test_an_output_named_like_a_table_is_refused(tmp_path, ending):
    with pytest.raises(OutputError, match=r"generate writes JSON; .* ends in \.jsonl"):
        job(tmp_path / f"out.{ending}").is_finished()


def test_the_difference_names_the_key_inside_of_a_group(tmp_path):
    output = tmp_path / "out.jsonl"

    def made(alpha):
        return job(output, decoding={"alpha": alpha})

    with made({"Question": 1, "Others": 2}).claimed(processes=False):
        made({"Question": 1, "Others": 2}).publish(lambda path: write_jsonl(path, [{}]))
    with pytest.raises(OutputError, match=r"differs: decoding.alpha.Others: 2.0, now 3.0\)"):
        made({"Question": 1, "Others": 3}).is_finished()


def test_windows_are_made_one_at_a_time_and_read_back_in_the_order_of_the_items(tmp_path):
    output, asked, alive = tmp_path / "out.jsonl", [], []
    plans = [[[2, 0], [1]], [[0]], [], [[1, 0]]]

    def windows(stop=None):
        for number, plan in enumerate(plans):
            held = Held(number)
            alive.append(weakref.ref(held))
            assert sum(one() is not None for one in alive) == 1
            yield Window(plan, lambda batch, held=held: work(held.number, batch, stop))
            del held

    def work(number, batch, stop):
        if len(asked) == stop:
            raise KeyboardInterrupt
        asked.append((number, list(batch)))
        return [f"{number}.{item}" for item in batch]

    with pytest.raises(KeyboardInterrupt):
        job(output).run_windows(windows(stop=2), items=6, state=State(), description="x")
    found = job(output).run_windows(windows(), items=6, state=State(), description="x")
    assert asked == [(0, [2, 0]), (0, [1]), (1, [0]), (3, [1, 0])]
    assert list(found.windows()) == [["0.0", "0.1", "0.2"], ["1.0"], [], ["3.0", "3.1"]]
    assert (len(found), list(found)[-1]) == (6, "3.1")


class Held:
    """What a window holds."""

    def __init__(self, number):
        self.number = number


def test_one_window_continues_a_journal_of_batches(tmp_path):
    """A journal that an earlier version left is of the same identity and form."""
    plan = [[0, 1], [2]]
    one = job(tmp_path / "out.jsonl")
    journal = one.journal(plan)
    journal.append("1", ["old"])
    journal.close()
    found = one.run_windows(
        [Window(plan, lambda batch: ["new"] * len(batch))], items=3, state=State(), description="x"
    )
    assert list(found) == ["new", "new", "old"]


def test_a_unit_that_a_disk_damaged_is_no_result(tmp_path):
    one = job(tmp_path / "out.jsonl")
    found = one.run_windows(
        [Window([[0], [1]], lambda batch: ["text"])], items=2, state=State(), description="x"
    )
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"text", b"next"))
    with pytest.raises(OutputError, match="damaged since it was written"):
        list(found)


def test_a_bar_says_what_it_counts(tmp_path, capsys):
    job(tmp_path / "out.jsonl").run_batches(
        [[0, 1, 2]], lambda batch: batch, state=State(), description="read", unit="text"
    )
    shown = capsys.readouterr().err
    assert "read: " in shown
    assert "text/s" in shown

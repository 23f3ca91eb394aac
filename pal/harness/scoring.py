"""What the files of an exported task call: its samples, and the scores of answers to them.

Both programs score through this file, and it scores as ``pal eval`` does, so that the same answers
have the same scores everywhere. Most scores are of all answers together (Distinct, BLEU), not means
over samples.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from pal.core.errors import DataError
from pal.core.files import fingerprint, read_json, read_jsonl
from pal.metrics.settings import MetricSettings
from pal.supporter.settings import SupporterSettings

SAMPLES, ABOUT = "samples.jsonl", "task.json"  # files of the folder


class ExportedTask:
    """A folder that ``pal export-task`` wrote.

    Args:
        folder: the folder.

    Attributes:
        about: what ``task.json`` says.
        supporter: how the model is asked.
        metrics: which scores, and by which models.

    Raises:
        DataError: the folder is not whole.

    Example:
        >>> task = ExportedTask(Path("runs/task"))
        >>> records = [task.record(row["id"], "I am here for you.") for row in task.rows]
        >>> task.scores(records)["length"]
        5.0
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.about: dict[str, Any] = read_json(self.folder / ABOUT)
        self.supporter = SupporterSettings(**self.about["supporter"])
        self.metrics = MetricSettings(**self.about["metrics"])
        self._last: tuple[str, dict[str, float]] = ("", {})

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The samples, in order: ``id``, ``system`` and ``user`` texts, and the gold turn."""
        return [row for _, row in read_jsonl(self.folder / SAMPLES)]

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each sample, by its id."""
        return {row["id"]: place for place, row in enumerate(self.rows)}

    def record(self, sample_id: str, answer: str | None) -> dict[str, Any]:
        """Return the record that a prediction file has of an answer.

        Args:
            sample_id: id of the sample.
            answer: the model's whole answer; None if it gave none.

        Raises:
            DataError: the task has no such sample.
        """
        from pal.supporter.replies import prediction_record, read_reply

        row = self.rows[self._place(sample_id)]
        gold = {key: row[key] for key in ("id", "persona", "reference", "reference_strategy")}
        return prediction_record(read_reply(answer or "", self.supporter), **gold)

    def scores(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Return the scores of some answers' records, by name; those without a value are left out.

        The order of the records does not matter. The last result is kept, since one program asks
        for each score by itself.
        """
        from pal.metrics.scoring import score_records

        if not records:
            return {}
        ordered = sorted(records, key=lambda record: self._place(record["id"]))
        ids = [record["id"] for record in ordered]
        twice = [one for one, other in pairwise(ids) if one == other]
        if twice:
            raise DataError(
                f"{self.folder}: two answers to {twice[0]!r}; ask each sample once, in one epoch"
            )
        key = fingerprint(ordered)
        if self._last[0] != key:
            self._last = (key, score_records(ordered, self.metrics).values)
        return dict(self._last[1])

    def _place(self, sample_id: str) -> int:
        if sample_id not in self.places:
            raise DataError(f"{self.folder}: no sample has the id {sample_id!r}; export it again")
        return self.places[sample_id]

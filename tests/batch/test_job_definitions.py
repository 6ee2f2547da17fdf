"""Job definitions: what a file may say, and the one sentence for what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_l2.batch import JobDefinitionInvalid, Phase, load_definition

WHOLE = """
handler: dagster_l2.sources:Reach
source: reach
batch_size: 7
rate: {initial: 5, increase: 1, decrease: 0.5, min: 0.1, max: 25}
retries: {budget_s: 600, first_wait_s: 2, max_wait_s: 60}
executor: {kind: processes, workers: 4, in_flight: 8, lease_s: 30}
phases: [initial, retry, aggregation]
"""


def write(folder: Path, text: str, name: str = "reach.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_whole_definition_is_read_and_bears_the_name_of_its_file(tmp_path: Path) -> None:
    found = load_definition(write(tmp_path, WHOLE))
    assert (found.name, found.source, found.batch_size) == ("reach", "reach", 7)
    assert found.phases == (Phase.INITIAL, Phase.RETRY, Phase.AGGREGATION)
    assert (found.rate.min, found.executor.kind, found.executor.in_flight) == (0.1, "processes", 8)
    assert [found.retries.wait_s(n) for n in (1, 2, 3, 20)] == [2, 4, 8, 60]


def test_handler_and_source_are_enough(tmp_path: Path) -> None:
    found = load_definition(write(tmp_path, "handler: a.b:c\nsource: reach\n"))
    assert (found.batch_size, found.executor.kind) == (1, "threads")


@pytest.mark.parametrize(("text", "said"), [
    ("handler: a.b:c\n", r"reach.yaml: source: Field required; correct it."),
    ("handler: [", r"reach.yaml is no YAML"),
    ("", r"reach.yaml holds no settings"),
    ("- 1", r"reach.yaml holds no settings"),
    (WHOLE.replace("batch_size: 7", "batch_size: 0"), r"batch_size: Input should be greater than or equal"),
    (WHOLE.replace("batch_size", "batchsize"), r"batchsize: Extra inputs are not permitted"),
    (WHOLE.replace("min: 0.1", "min: 30"), r"rate: min, initial and max must rise"),
    (WHOLE.replace("decrease: 0.5", "decrease: 2"), r"rate\.decrease"),
    (WHOLE.replace("[initial, retry", "[retry, initial"), r"phases must be initial and what follows"),
    (WHOLE.replace("[initial, retry, ", "["), r"phases must be initial"),
    (WHOLE.replace("processes", "dusk"), r"executor\.kind"),
    (WHOLE.replace("dagster_l2.sources:Reach", "os.system"), r"handler"),
])  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(JobDefinitionInvalid, match=said) as raised:
        load_definition(write(tmp_path, text))
    assert raised.value.exit_code == 2
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobDefinitionInvalid, match=r"none\.yaml can't be read"):
        load_definition(tmp_path / "none.yaml")

"""Verdicts are drawn from records alone: met, missed, and never where there is no record."""

from __future__ import annotations

from typing import Any

from unmerge_lab.report.circuits_record import CircuitRecords, ToyRecords
from unmerge_lab.report.circuits_tables import reconstructions, verdicts


def tms(reconstruction: float, matched: int) -> CircuitRecords:
    rows: list[dict[str, Any]] = [
        {
            "matched_97": matched if run else 5,
            "reconstruction": reconstruction,
            "floor": 0.1,
            "floor_published": 0.05,
            "spare": 0,
            "encoder_decoder_cosine": [0.5, -0.7],
        }
        for run in range(20)
    ]
    record = {"rows": rows, "seconds": 40.0, "runs": 20}
    return CircuitRecords({"tms": ToyRecords({"title": "TMS", "seconds": 10.0}, {(5, 1): record}, None, None)}, None)


def met(records: CircuitRecords) -> dict[str, str]:
    return {row[0]: row[3] for row in verdicts(records)[1]}


def test_every_verdict_of_a_good_run_is_yes() -> None:
    assert set(met(tms(0.2, 5)).values()) == {"yes"}
    assert len(met(tms(0.2, 5))) == 5


def test_a_miss_is_a_no() -> None:
    missed = met(tms(0.2, 4))
    assert missed["TMS: runs with 5 of 5 circuits at .97 on both matrices"] == "no"
    missed = met(tms(0.21, 5))
    assert missed["TMS: runs with 5 of 5 circuits at .97 on both matrices"] == "yes"
    assert missed["TMS: these, with a reconstruction of .20 or less"] == "no"
    assert missed["TMS: reconstruction, 5 of rank 1"] == "no"


def test_a_target_below_the_floor_says_so() -> None:
    records = tms(0.25, 5)
    for row in records.toys["tms"].found[5, 1]["rows"]:
        row["floor"] = 0.22
    measured = {row[0]: row[2] for row in verdicts(records)[1]}
    assert measured["TMS: reconstruction, 5 of rank 1"] == "0.250 (no 5 directions leave less than 0.220)"


def test_published_values_stand_beside_ours() -> None:
    head, rows = reconstructions(tms(0.2, 5).toys["tms"], "tms")
    assert dict(zip(head, rows[0], strict=True)) == {
        "subnetworks": "5 of rank 1",
        "reconstruction": "0.200",
        "over runs": "0.200 to 0.200",
        "floor": "0.100",
        "floor, published gradients": "0.050",
        "published": "0.190",
        "spare": "0.0",
        "cos(V_in, V_out)": "0.60",
        "s a run": "2",
    }

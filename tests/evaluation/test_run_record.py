import pytest

from synclave_server.evaluation.run_record import read_run
from synclave_shared.errors import LedgerError, PlanError, SnapshotError
from synclave_shared.ledger.verify import verify_ledger
from synclave_shared.privacy.accountant import epsilon
from tests.evaluation.runs import make_plan, write_run, write_snapshot_record

SITES = ("north", "south")


def test_epsilon_over_rounds_ends_at_what_the_auditor_recomputes(tmp_path):
    plan = make_plan("one", SITES, rounds=3)
    record = read_run(write_run(tmp_path, [plan], {"north": 4, "south": 2}))
    assert record.ledger_valid
    audited = verify_ledger(tmp_path / "ledger")
    assert record.ledger_root == audited.root
    by_name = {spend.site: spend for spend in record.sites}
    assert by_name["north"].rounds == (0, 1, 2, 3)
    assert by_name["south"].rounds == (0, 1)
    for name, spend in by_name.items():
        assert spend.before == 0.0
        assert list(spend.epsilon) == sorted(spend.epsilon)
        assert spend.epsilon[-1] == pytest.approx(audited.sites[name].epsilon, rel=0.02)
        assert (spend.budget, spend.delta) == (3.0, 1e-5)
    assert by_name["north"].epsilon[0] == pytest.approx(epsilon(plan.mechanisms()[:1], 1e-5), rel=0.02)
    assert by_name["south"].epsilon == by_name["north"].epsilon[:2]


def test_an_earlier_run_on_the_same_data_is_where_the_curve_begins(tmp_path):
    plans = [make_plan(name, SITES, rounds=2) for name in ("first", "second")]
    record = read_run(write_run(tmp_path, plans, {"north": 3}))
    (spend,) = record.sites
    assert spend.rounds == (0, 1, 2)
    assert 0 < spend.before < spend.epsilon[0]
    assert spend.epsilon[-1] == pytest.approx(verify_ledger(tmp_path / "ledger").sites["north"].epsilon, rel=0.02)
    # Composition, and not a sum of the two runs.
    assert spend.epsilon[-1] < 2 * spend.before


def test_a_changed_ledger_is_reported_and_not_raised(tmp_path):
    write_run(tmp_path, [make_plan("one", SITES, rounds=1)], {"north": 2})
    bundle = next(path for path in (tmp_path / "ledger" / "tile" / "entries").rglob("*") if path.is_file())
    content = bytearray(bundle.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.write_bytes(content)
    record = read_run(tmp_path)
    assert not record.ledger_valid
    assert record.findings


def test_the_snapshot_is_named_and_one_of_another_plan_refused(tmp_path):
    plan = make_plan("one", SITES, rounds=1)
    write_run(tmp_path, [plan], {"north": 1})
    assert read_run(tmp_path).snapshot_digest is None
    write_snapshot_record(tmp_path, plan.digest)
    record = read_run(tmp_path)
    assert (record.snapshot_digest, record.snapshot_round) == ("a" * 64, 3)
    described = tmp_path / "snapshot" / "snapshot.json"
    described.write_bytes(described.read_bytes().replace(plan.digest.encode(), b"9" * 64))
    with pytest.raises(SnapshotError, match=r"another|9999"):
        read_run(tmp_path)
    described.write_text("[]")
    with pytest.raises(SnapshotError):
        read_run(tmp_path)


def test_a_folder_that_is_no_run_is_explained(tmp_path):
    with pytest.raises(PlanError, match=r"plan\.json"):
        read_run(tmp_path)
    (tmp_path / "plan.json").write_bytes(make_plan("one", SITES, rounds=1).to_bytes())
    with pytest.raises(LedgerError, match="no checkpoint"):
        read_run(tmp_path)

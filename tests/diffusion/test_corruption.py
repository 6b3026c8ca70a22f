import torch

from synclave_shared.diffusion.corruption import corrupt, hidden_cross_entropy
from synclave_shared.diffusion.losses import cross_entropy
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT, small_rows

MASKED = ModelSpec(corruption="masked")


def clean(patients: int) -> torch.Tensor:
    return torch.from_numpy(small_rows(patients)[0]).float()


def normals(patients: int, levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(patients, levels, generator=generator), torch.randn(patients, levels, 12, generator=generator)


def test_the_share_of_known_columns_is_uniform_over_levels_and_groups_are_known_as_a_whole() -> None:
    levels, noise = normals(4000, 2)
    seen = corrupt(clean(4000), levels, noise, MASKED, LAYOUT)
    assert seen.known is not None
    assert torch.equal(seen.known[..., 9], seen.known[..., 10])
    assert torch.equal(seen.known[..., 9], seen.known[..., 11])
    share = seen.known[..., :9].float().mean(-1).flatten()
    counts = torch.bincount((share * 9).round().long(), minlength=10) / len(share)
    # With a uniform share each number of known columns among nine is equally likely; 8,000 rows, 5 standard errors.
    assert (counts - 0.1).abs().max() < 5 * (0.1 * 0.9 / 8000) ** 0.5
    assert torch.equal(seen.x[seen.known], clean(4000)[:, None].expand_as(seen.x)[seen.known])
    assert not seen.x[~seen.known].any()
    assert torch.isinf(seen.sigma).all()


def test_the_masked_loss_counts_hidden_columns_only_and_stands_for_all() -> None:
    levels, noise = normals(6000, 1)
    rows = clean(6000)
    seen = corrupt(rows, levels, noise, MASKED, LAYOUT)
    assert seen.known is not None
    logits = torch.randn(12).expand(6000, 1, 12)
    loss = hidden_cross_entropy(logits, rows, seen, LAYOUT)
    shifted = hidden_cross_entropy(torch.where(seen.known, logits + 3, logits), rows, seen, LAYOUT)
    assert torch.allclose(loss, shifted, atol=1e-4)
    whole = cross_entropy(logits, rows[:, None], LAYOUT)
    # Rows of which all is known weigh nothing; of the others the mean stands for the whole, within 4 %.
    some = (~seen.known).any(-1)
    assert abs(float(loss[some].mean() / whole.mean()) - 1) < 0.04


def test_gaussian_corruption_is_what_the_plan_says() -> None:
    spec = ModelSpec()
    levels, noise = normals(500, 3)
    rows = clean(500)
    seen = corrupt(rows, levels, noise, spec, LAYOUT)
    assert seen.known is None
    assert torch.allclose((seen.x - rows[:, None]) / seen.sigma[..., None], noise, atol=1e-4)
    assert seen.sigma.min() >= float(spec.sigma_min) - 1e-6
    assert seen.sigma.max() <= float(spec.sigma_max) + 1e-6

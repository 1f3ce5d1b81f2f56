"""What a chain makes of a strip is what it makes there of the whole map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.passes.refit import strips
from edgec.passes.refit.strips import Strips
from edgec.passes.solvers.chain import Link, forward
from edgec.passes.solvers.gram import Patches
from edgec.passes.solvers.rectified import Clipping

CHANNELS = 4


@st.composite
def layers(draw: st.DrawFn) -> Patches:
    kernel = draw(st.tuples(st.sampled_from((1, 2, 3, 5)), st.sampled_from((1, 3))))
    return Patches(
        CHANNELS,
        kernel,
        draw(st.tuples(st.sampled_from((1, 2, 3)), st.sampled_from((1, 2)))),
        draw(st.tuples(*(st.integers(0, 2) for _ in range(4)))),
        draw(st.tuples(st.sampled_from((1, 2)), st.just(1))),
        group=draw(st.sampled_from((1, 2, CHANNELS))),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(layers(), min_size=1, max_size=3), st.integers(24, 40), st.integers(0, 2**16))
def test_a_strip_holds_what_the_whole_map_holds_there(chain: list[Patches], height: int, number: int) -> None:
    rng = np.random.default_rng(number)
    x = rng.standard_normal((1, height, 12, CHANNELS)).astype(np.float32)
    links = [
        Link(one, rng.standard_normal((one.group, one.unknowns, CHANNELS // one.group)), Clipping(0.0, 3.0))
        for one in chain
    ]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(strips, "PIXELS", 12)
        found = Strips.of(chain, (height, 12))
    whole = forward(links, x)
    if found is None:
        return
    assert found.pixels >= min(12, whole[0, ..., 0].size)
    cut = found.cut(number)
    inside = [Link(Strips.inside(one.patches), one.columns, one.clipping) for one in links]
    made = forward(inside, x[:, cut.inner])
    np.testing.assert_allclose(made, whole[:, cut.outer], rtol=1e-4, atol=1e-4)


def test_strips_lie_everywhere_but_at_the_upper_and_lower_border() -> None:
    chain = [
        Patches(8, (1, 1), (1, 1), (0,) * 4, (1, 1)),
        Patches(8, (3, 3), (2, 2), (1,) * 4, (1, 1), group=8),
    ]
    found = Strips.of(chain, (112, 112))
    assert found is not None
    starts = {found.cut(number).outer.start for number in range(400)}
    # Row 0 of the output reads a row of zeros; 19 rows of 56 pixels are the first that are enough.
    assert found.rows == 19
    assert starts == set(range(1, 56 - 19 + 1))
    assert found.cut(5) == found.cut(5)


@pytest.mark.parametrize(
    ("chain", "spatial"),
    [
        ([Patches(8, (3, 3), (1, 1), (1,) * 4, (1, 1))], (32, 32)),
        ([Patches(8, (3, 3), (8, 8), (1,) * 4, (1, 1))], (224, 224)),
        ([Patches(8, (3,), (1,), (1, 1), (1,))], (4096,)),
        ([Patches(8, (3, 3), (1, 1), (1,) * 4, (1, 1))], None),
        ([Patches(8, (63, 3), (1, 1), (31, 1, 31, 1), (1, 1))], (64, 64)),
    ],
    ids=["small maps", "small outputs", "one axis", "an open size", "no room for the rows that it reads"],
)
def test_other_maps_stay_whole(chain: list[Patches], spatial: tuple[int, ...] | None) -> None:
    assert Strips.of(chain, spatial) is None

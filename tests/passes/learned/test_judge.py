"""The temperature that networks are compared at."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from edgec.passes.learned import judge


@pytest.mark.parametrize("places", [(), (8,), (4, 6)])
def test_a_temperature_is_found_from_some_of_many_logits(
    places: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    taught = 3 * rng.standard_normal((200, *places, 20)).astype(np.float32)
    # The first place alone would ask for another one.
    softer = np.full((*places, 1), 2.0, np.float32)
    if places:
        softer[(0,) * len(places)] = 6.0
    said = taught / softer
    whole = judge._best_scale(said, taught)
    monkeypatch.setattr(judge, "MOST_LOGITS", said.size // 8)
    assert judge._best_scale(said, taught) == pytest.approx(whole, rel=0.05)
    assert whole == pytest.approx(2.0, rel=0.15)

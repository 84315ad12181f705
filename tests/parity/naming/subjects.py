"""The published modules of the tests as subjects of a search."""

import jax
import jax.numpy as jnp
import published
import published_flax

from parity.naming.subject import Subject, subject_of

TORCH = {kind.__name__: kind for kinds in published.MODULES.values() for kind in kinds}


class NotShifting(published_flax.Wmt):
    """The module of examples/wmt, given what its decoder reads."""

    def __call__(self, source, target):
        seen, ahead = published_flax.masks(source, target, 0)
        return self.decoder(target, ahead, self.encoder(source, seen), seen)


FLAX = {
    "wmt": NotShifting(),
    "wmt nothing shared": NotShifting(False, False),
    "wmt old names": NotShifting(True, True, published_flax.OLD),
    "d2l in flax": published_flax.D2L(),
    "fused in flax": published_flax.D2L(True),
}


def subject(name: str) -> Subject:
    if name in TORCH:
        return subject_of(name, published.made(TORCH[name]))
    module = FLAX[name]
    params = published_flax.parameters(module)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    return subject_of(name, lambda tree, *ids: module.apply({"params": tree}, *ids), wide)

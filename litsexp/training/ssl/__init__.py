"""Self-supervised initialisations: an encoder that has learned from its fold's training slices, without their labels.

The arm's whole network, with three channels of an image in place of three labels, learns to give back a slice as it
was before it was distorted; the encoder's weights are kept. All training patients of the fold are used, those too that
``train_fraction`` leaves out of the supervised training; validation, test and external patients never are, whatever
``split_unit`` does afterwards.
"""

from torch import Tensor

from litsexp.spec.run import RunConfig
from litsexp.training.init import Corpus
from litsexp.training.ssl.cached import pretrained
from litsexp.training.ssl.distortions import distorted, with_hidden_patches


def restoration(run: RunConfig, seed: int, corpus: Corpus) -> dict[str, Tensor]:
    """An encoder that undid changed grey values, swapped patches and painted areas, as Models Genesis (Zhou 2019)."""
    return pretrained(run, seed, corpus, distorted)


def masked(run: RunConfig, seed: int, corpus: Corpus) -> dict[str, Tensor]:
    """An encoder that filled in hidden patches, as masked autoencoders (He 2022) and SimMIM (Xie 2022)."""
    return pretrained(run, seed, corpus, with_hidden_patches)

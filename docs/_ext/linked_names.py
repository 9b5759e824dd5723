"""Names of the package in the code of a sentence become links to the reference; pages stay plain Markdown."""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import keras_sip
from keras_sip import callbacks

# `SIPModel`, `GaussNewton(cg_steps=5)`, `keras_sip.diagnose(simulator)`, `callbacks.ModelCard`
CODE = re.compile(r"(?:keras_sip\.)?(?:callbacks\.)?(\w+)(?:\(.*\))?")
TARGETS = {name: f"keras_sip.{name}" for name in keras_sip.__all__ if callable(getattr(keras_sip, name))}
TARGETS |= {name: f"keras_sip.callbacks.{name}" for name in callbacks.__all__}


class LinkedNames(SphinxTransform):
    default_priority = 500

    def apply(self, **kwargs):
        for literal in list(self.document.findall(nodes.literal)):
            match = CODE.fullmatch(literal.astext())
            if match is None or match[1] not in TARGETS or _inside(literal, nodes.reference, nodes.title):
                continue
            link = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=TARGETS[match[1]],
                refexplicit=True,
                refwarn=True,
                refdoc=self.env.docname,
            )
            literal.replace_self(link)
            link += literal


def _inside(node, *kinds):
    while node is not None:
        if isinstance(node, (*kinds, addnodes.pending_xref)):
            return True
        node = node.parent
    return False


def setup(app):
    app.add_transform(LinkedNames)
    return {"parallel_read_safe": True}

"""`describe` and `selftest`: what the image reports of itself."""

from collections.abc import Iterator
from functools import partial

from lary_schema.base import ContractError
from lary_schema.cards import ModelCard

from lary_conformance.case import Case, Skipped, expect
from lary_conformance.subject import Subject


def cases(subject: Subject) -> Iterator[Case]:
    yield Case("describe", "", partial(_image, subject), "look at image.yaml and at what `describe` prints")
    for card in subject.card.models:
        yield Case("describe", card.key, partial(_model, subject, card), "look at the model's card in image.yaml")
    if subject.card.models or subject.card.kind != "model":
        yield Case("selftest", "", partial(_selftest, subject), "run `selftest` by hand; it prints what it found")


def _image(subject: Subject) -> str:
    """The reply, against the card that the catalog knows."""
    known, found = subject.prepared.source.card, subject.card
    if known.models or known.policies:
        expect(known.name == found.name, f"image.yaml says name {known.name}, describe {found.name}")
        expect(known.kind == found.kind, f"image.yaml says kind {known.kind}, describe {found.kind}")
        ours, theirs = {m.key for m in known.models}, {m.key for m in found.models}
        expect(ours == theirs, f"image.yaml has keys {sorted(ours)}, describe {sorted(theirs)}")
        ours, theirs = {p.key for p in known.policies}, {p.key for p in found.policies}
        expect(ours == theirs, f"image.yaml has policies {sorted(ours)}, describe {sorted(theirs)}")
    if found.kind == "model":
        expect(bool(found.models or found.policies), "an image of kind model without models and policies")
    else:
        expect(found.code_sha256 is not None, "a probe image without code_sha256: its scores could not be traced")
    expect(bool(found.libraries), "no versions of libraries, which can move a value")
    acting = f", {len(found.policies)} policies" if found.policies else ""
    return f"{found.name}, {found.kind}, {len(found.models)} models{acting}"


def _model(subject: Subject, card: ModelCard) -> str:
    """The card of one key, as `describe --model` resolves it."""
    key = card.example or card.key
    if key not in subject.models:
        raise Skipped("not among the chosen models")
    resolved = subject.models[key]
    expect(card.serves(key), f"the card of {card.key} does not serve {key}")
    if card.pattern is None and resolved != card:
        raise ContractError(f"`describe` and `describe --model {key}` differ")
    shapes = [f"{feed.mode}/{feed.variant}" for feed in subject.feeds() if feed.key == key]
    expect(bool(shapes), "no mode at all")
    return ", ".join(shapes)


def _selftest(subject: Subject) -> str:
    if subject.unknown_user is not None and subject.breach_in_isolation is None:
        return "exit 0, under isolation"
    subject.runtime.query(subject.prepared, "selftest")
    return "exit 0"

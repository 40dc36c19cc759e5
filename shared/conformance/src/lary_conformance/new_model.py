"""`new-model`: the folder of a model that works at once, copied from images/baseline by text substitution."""

import keyword
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import lary_orch
from lary_schema.atomic import making
from lary_schema.base import ContractError

TEMPLATE_FILES = (
    ".dockerignore",
    "Dockerfile",
    "pyproject.toml",
    "src/lary_baseline/__init__.py",
    "src/lary_baseline/image.yaml",
    "src/lary_baseline/frame_diff.py",
    "src/lary_baseline/patches.py",
    "src/lary_baseline/py.typed",
    "tests/test_frame_diff.py",
)
"""What `frame-diff` consists of, below images/baseline."""
TRAINABLE = Path(__file__).parent / "trainable"
TRAINABLE_FILES = ("image.yaml", "network.py", "trainee.py", "frames.py", "model.py")
"""Of a model that is trained here, with placeholders for its names."""
RESERVED = {"base", "schema", "worker", "trainer", "orch", "model", "latents", "weights"}
"""Names of our own packages, and of the classes that a model's file imports."""


@dataclass(frozen=True)
class ModelName:
    """One name in its four spellings. Raises ContractError for a name that cannot be spelt so."""

    key: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.key):
            raise ContractError(
                f"{self.key!r} cannot name a model: small letters, digits and single dashes, a letter first"
            )
        if self.key in RESERVED or keyword.iskeyword(self.class_name):
            raise ContractError(f"{self.key!r} cannot name a model: the name is taken by the bench or by Python")

    @property
    def module(self) -> str:
        return self.key.replace("-", "_")

    @property
    def package(self) -> str:
        return f"lary_{self.module}"

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in self.key.split("-"))


def make_model_folder(
    name: str, target: Path, template: Path, taken: Collection[str] = (), *, train: bool = False
) -> list[Path]:
    """Fill `target` with the new model's files; their paths, relative to it. `train`: of a model that is trained here.

    `template` is images/baseline of the checkout, `taken` the images and models of the catalog.
    Raises ContractError for a bad or taken name, and where anything exists at `target`.
    """
    model = ModelName(name)
    if name in taken:
        raise ContractError(f"the catalog has an image or model {name!r} already; take another name")
    if target.exists():
        raise ContractError(f"{target}: exists already; remove it, or choose another folder by --to")
    texts = trainable_texts(model, template) if train else _texts(model, template)
    try:
        with making(target) as draft:
            for file, text in texts.items():
                path = draft / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ContractError(f"{target}: cannot be written: {error.strerror}; choose another folder by --to") from None
    return [Path(file) for file in texts]


def _texts(model: ModelName, template: Path) -> dict[str, str]:
    texts = {_renamed(file, model): _adapted(_read(template / file), model) for file in TEMPLATE_FILES}
    texts["pyproject.toml"] += '\n[tool.pytest.ini_options]\npythonpath = ["src"]\n'
    return texts | {"README.md": _readme(model, template.parents[1])}


def trainable_texts(model: ModelName, template: Path) -> dict[str, str]:
    """Path -> text of a model that is trained here: its image is made as the template's, its code is that of
    `trainable/`."""
    common = {name: _adapted(_read(template / name), model) for name in TEMPLATE_FILES[:3]}
    points = f'[project.entry-points."lary.models"]\n{model.key} = "{model.package}.model:{model.class_name}"\n'
    points += f'\n[project.entry-points."lary.trainees"]\n{model.key} = "{model.package}.trainee:'
    points += f'{model.class_name}Trainee"\n'
    project = re.sub(r'(?m)^\[project\.entry-points."lary\.models"\]\n.*\n', lambda _: points, common["pyproject.toml"])
    project = project.replace(
        '    "lary-worker",\n', '    "lary-trainer",\n    "lary-worker",\n    "safetensors>=0.5",\n'
    )
    package = f"src/{model.package}"
    common["Dockerfile"] += 'ENTRYPOINT ["python", "-m", "lary_trainer"]\n'
    texts = common | {"pyproject.toml": project, f"{package}/__init__.py": f'"""The model {model.key}."""\n'}
    texts |= {f"{package}/py.typed": "", f"recipes/{model.key}-small.yaml": _trainable("recipe.yaml", model)}
    texts |= {f"{package}/{name}": _trainable(name, model) for name in TRAINABLE_FILES}
    return texts | {"README.md": _trainable("README.md", model)}


def _trainable(name: str, model: ModelName) -> str:
    text = _read(TRAINABLE / f"{name}.txt")
    names = {"@NAME@": model.key, "@PACKAGE@": model.package, "@CLASS@": model.class_name}
    return re.sub("|".join(names), lambda match: names[match[0]], text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ContractError(f"{path}: the template cannot be read: {error.strerror}; is the checkout whole?") from None


def _adapted(text: str, model: ModelName) -> str:
    return _renamed(_description(_own_version(_without_other_models(text)), model), model)


def _own_version(text: str) -> str:
    """The template's pyproject.toml has the bench's version, from a file of the checkout."""
    text = re.sub(r"\[tool\.hatch\.version\]\n(?:.+\n)+\n", "", text)
    return text.replace('dynamic = ["version"]\n', 'version = "0.1.0"\n')


def _without_other_models(text: str) -> str:
    """Drop the cards (image.yaml) and entry points (pyproject.toml) of the template's other keys."""
    text = re.sub(r'(?m)^[\w-]+ = "lary_baseline\.(?!frame_diff:).*\n', "", text)
    preamble, *cards = re.split(r"(?m)^(?=  - key: )", text)
    return preamble + "".join(card for card in cards if card.startswith("  - key: frame-diff\n"))


def _description(text: str, model: ModelName) -> str:
    """The template describes itself in one line of pyproject.toml and one docstring."""
    text = re.sub(r'(?m)^description = ".*"$', f'description = "The model {model.key} for the LAM bench"', text)
    return re.sub(r'\A"""Models that need no weights.*"""', f'"""The model {model.key}."""', text)


def _renamed(text: str, model: ModelName) -> str:
    """All names in one pass, so that a name which contains another one stays whole."""
    names = {
        # A word of the contract, and not a name of ours.
        "paradigm: baseline": "paradigm: baseline",
        "lary_baseline": model.package,
        "baseline": model.key,
        "frame_diff": model.module,
        "frame-diff": model.key,
        "FrameDiff": model.class_name,
    }
    return re.sub("|".join(names), lambda match: names[match[0]], text)


def _readme(model: ModelName, bench: Path) -> str:
    """`bench` is the checkout, whose environment has what the tests need."""
    at = shlex.quote(str(bench))
    return f"""# {model.key}

A model for the LAM bench. It works as it is: differences of small neighbouring frames. Make it yours in
`src/{model.package}/`:

| file | holds |
| --- | --- |
| `image.yaml` | the facts: title, shapes per mode, variants, weights, licence, source |
| `{model.module}.py` | `preprocess` for a row, in a decode process; `load` and `encode` for a batch, on the device |

What it needs to run goes under `dependencies` in `pyproject.toml`, weights under `weights:` in `image.yaml`.

```sh
lary-orch run --catalog . -m {model.key} -d demo_motion --protocol smoke      # extract, probe, table
lary-orch images build --catalog . {model.key}                                # its container
lary-orch conformance lary/{model.key}:{lary_orch.__version__}                                  # is the contract kept?
```

The tests take the bench's own environment, which has its packages and pytest:

```sh
make -C {at} .venv/.dev
{at}/.venv/bin/python -m pytest tests
```

Change `preprocessing` in `image.yaml` whenever a pixel could change, and `revision` when values change
though no source file of the model did: both make another latent store.
"""

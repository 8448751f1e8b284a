"""Checkpoints by name from the Hugging Face Hub, and what to do where it cannot be reached."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vggt3 import checks

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
PREFERRED = ("model.safetensors", "model.pt", "pytorch_model.bin")

CAUTIONS: Mapping[str, str] = {
    "facebook/VGGT-1B": "for non-commercial use only (CC-BY-NC-4.0, see its model card)",
    "nvidia/vgg-ttt": "for non-commercial use only (see its model card)",
}
"""What was known of a licence when this was written, said beside what the Hub says now."""


@dataclass(frozen=True)
class Fetched:
    """A checkpoint on this machine."""

    checkpoint: Path
    licence: str
    """What to tell the user."""


def is_repo(source: str) -> bool:
    """Whether a word is a repository's id such as ``facebook/VGGT-1B``, and no file's name."""
    known = re.fullmatch(r"[\w.-]+/[\w.-]+", source) is not None
    return known and not source.lower().endswith(CHECKPOINTS) and not source.startswith(".")


def licence_of(repo: str, card: Any = None) -> str:
    """One sentence about a repository's licence; ``card`` is its metadata, if it could be read."""
    told = []
    for key in ("license", "license_name", "license_link"):
        value = getattr(card, key, None)
        if isinstance(value, str) and value.isprintable() and value not in told:
            told.append(value)
    said = f"the Hub says: {' '.join(told)}" if told else "the Hub's card could not be read"
    caution = CAUTIONS.get(repo, "see its model card before you use it")
    return f"licence of {repo}: {caution}; {said}. The weights keep it, however you convert them."


def fetch(repo: str) -> Fetched:
    """Download (or find in the cache) a repository's checkpoint and its config.

    Raises:
        DataError: no such repository or no access; no checkpoint in it; the Hub cannot be
            reached and the cache has none (says what to download and where to put it).
    """
    import huggingface_hub
    from huggingface_hub import errors

    # The base of its HTTP client's errors is among the bases, whichever client it uses.
    bases = [b for b in errors.HfHubHTTPError.__bases__ if issubclass(b, Exception)]
    network: tuple[type[Exception], ...] = (OSError, *bases)
    try:
        info = huggingface_hub.HfApi().model_info(repo, timeout=20)
        held = [sibling.rfilename for sibling in info.siblings or ()]
        wanted = choose_file(repo, held)
        if "config.json" in held:
            huggingface_hub.hf_hub_download(repo, "config.json")
        path = Path(huggingface_hub.hf_hub_download(repo, wanted))
    except errors.GatedRepoError:
        _unusable(repo, "a repository whose terms must be accepted on its page first")
    except errors.RepositoryNotFoundError:
        _unusable(repo, "no such repository, or a private one")
    except errors.HFValidationError as error:
        _unusable(repo, error)
    except network as error:
        cached = _cached(repo)
        if cached is None:
            _unreachable(repo, error)
        return Fetched(cached, licence_of(repo))
    return Fetched(path, licence_of(repo, info.card_data))


def choose_file(repo: str, held: Iterable[str]) -> str:
    """The file of a repository that is its checkpoint.

    Raises:
        DataError: none, or several that could be.
    """
    files = [name for name in held if name.lower().endswith(CHECKPOINTS)]
    for name in PREFERRED:
        if name in files:
            return name
    for ending in CHECKPOINTS:
        fitting = [name for name in files if name.lower().endswith(ending)]
        if len(fitting) == 1:
            return fitting[0]
    _unusable(repo, ", ".join(files[:4]) or "no checkpoint")


def _cached(repo: str) -> Path | None:
    import huggingface_hub

    for name in PREFERRED:
        found = huggingface_hub.try_to_load_from_cache(repo, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _unusable(repo: str, got: object) -> NoReturn:
    checks.fail(repo, "hold one checkpoint on the Hugging Face Hub", got, error=checks.DataError)


def _unreachable(repo: str, error: BaseException) -> NoReturn:
    reason = str(error).partition("\n")[0] or type(error).__name__
    checks.fail(
        repo,
        f"be downloaded by hand, since the Hugging Face Hub cannot be reached from here: take "
        f"{PREFERRED[0]} (or {PREFERRED[1]}) and config.json, if there is one, from the "
        f"repository {repo}, put them into one folder on this machine, and run vggt3 weights "
        f"import FOLDER/{PREFERRED[0]} -o DIR",
        f"{type(error).__name__} ({reason[:120]})",
        error=checks.DataError,
    )

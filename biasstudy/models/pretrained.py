"""Pretrained models of diffusers and transformers: where they lie, what names their content, and
what they are told.

A model is a folder, or an id of the hub whose files are in the hub's cache on this machine. Nothing
is downloaded unless an option says so, and only safetensors are read. Experiments name a model by
its files' checksum, not by where it lies.
"""

import contextlib
import functools
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from ..core.checks import listed
from ..core.places import in_home
from ..core.seeds import digest

# endings of the files that are read
READ = (".json", ".txt", ".safetensors")
# and an index where they come in parts
WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
UNREAD = [
    "safety_checker/*",
    "*.fp16.safetensors",
    "*.non_ema.safetensors",
    "*.fp16-*",
    "*.non_ema-*",
]


def require(owner: str, *packages: str) -> None:
    """ImportError with one sentence unless these packages are installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{owner} needs {' and '.join(missing)}, not installed here: pip install "
            "'biasstudy[sd]'"
        )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Inside, diffusers and transformers draw no progress bars."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    drawing = [
        library for library in (of_diffusers, of_transformers) if library.is_progress_bar_enabled()
    ]
    for library in drawing:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in drawing:
            library.enable_progress_bar()


def located(owner: str, model: str, revision: str, download: bool, parts: Sequence[str]) -> Path:
    """Folder in which a pretrained model lies.

    model     a folder, else an id of the hub
    revision  branch, tag or commit of an id; "": its main branch
    download  whether an id may be fetched from the hub where the cache does not have it
    parts     its folders that are needed; "": files beside each other
    raises    FileNotFoundError   no such folder and not in the cache, or a part lacks its
              safetensors
              ValueError          a revision for a folder
    """
    folder = in_home(model, "give the folder in full")
    if folder.is_dir():
        if revision:
            raise ValueError(
                f"{owner}: a revision is for an id of the hub; got {revision!r} for the folder "
                f"{model}"
            )
    else:
        folder = _cached(owner, model, revision, download, parts)
    for part in parts:
        if not any(
            (folder / part / name).is_file() or (folder / part / f"{name}.index.json").is_file()
            for name in WEIGHTS
        ):
            where = f"the folder {part!r} of {model}" if part else model
            raise FileNotFoundError(
                f"{owner}: {where} has no weights as safetensors; expected {' or '.join(WEIGHTS)}"
            )
    return folder


def _cached(owner: str, model: str, revision: str, download: bool, parts: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [f"{part}*{ending}" for part in ("", "*/") for ending in (".json", ".txt")]
    wanted += [f"{part}/*.safetensors" if part else WEIGHTS[1] for part in parts]
    try:
        return Path(
            snapshot_download(
                model,
                revision=revision or None,
                local_files_only=not download,
                allow_patterns=wanted,
                ignore_patterns=UNREAD,
            )
        )
    except (HFValidationError, LocalEntryNotFoundError) as error:
        hint = "" if download else "; the option download: true fetches an id"
        raise FileNotFoundError(
            f"{owner}: {model} is no folder here, nor an id in the hub's cache{hint}"
        ) from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"{owner}: the hub has no {model} {revision}".rstrip()) from error


def identified(owner: str, folder: Path, parts: Sequence[str], expected: str) -> str:
    """Name of a model's content: hash of the relative names and sha256 of the files that are read.

    expected  what the option `checksum` says; "" takes any
    raises    ValueError   if another was expected
    """
    paths = [
        path
        for part in ("", *parts)
        for path in (folder / part).iterdir()
        if path.suffix in (READ if part in parts else READ[:1])
    ]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    used = {
        name: path
        for name, path in names.items()
        if not any(fnmatch(name, pattern) for pattern in UNREAD)
    }
    checksum = digest(
        {name: _sha256(path.resolve(), path.stat().st_mtime_ns) for name, path in used.items()}
    )
    if expected not in ("", checksum):
        raise ValueError(
            f"{owner}: the model has checksum {checksum}; the option checksum expects {expected}"
        )
    return checksum


@functools.cache
def _sha256(path: Path, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prompts_for(
    owner: str,
    given: list,
    template: str,
    classes: Sequence[str],
    contexts: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> list[str]:
    """One text per told condition.

    given     texts that are used as they are, if there are any
    template  text with {class} where the name of the class goes, its underscores as spaces
    groups    those that are told: class k in group g is condition k * len(groups) + g, and its text
              ends ", context of g"
    raises    ValueError   if they are not one per condition
    """
    n = len(classes) * max(1, len(groups))
    if given:
        if len(given) != n or not all(isinstance(text, str) for text in given):
            raise ValueError(
                f"{owner}: prompts must be {n} texts, one per condition that is told; got "
                f"{len(given)}"
            )
        return list(given)
    if template.count("{class}") != 1:
        raise ValueError(
            f"{owner}: template must say once where the class goes, as {{class}}; got {template!r}"
        )
    named = [template.replace("{class}", name.replace("_", " ")) for name in classes]
    if not groups:
        return named
    if len(contexts) != len(groups) or not all(isinstance(text, str) for text in contexts):
        raise ValueError(
            f"{owner} is told groups and needs contexts, one text for each of: {listed(groups)}; "
            f"got {len(contexts)}"
        )
    return [f"{text}, {context}" for text in named for context in contexts]


def tokens(owner: str, tokenizer: Any, texts: list[str]) -> Any:
    """Texts as a tokenizer of transformers has them, (n, length) tensors by name; ValueError if one
    is too long."""
    longest = tokenizer.model_max_length
    for text in texts:
        if (n := len(tokenizer(text).input_ids)) > longest:
            raise ValueError(f"{owner}: a prompt may have {longest} tokens; {text!r} has {n}")
    return tokenizer(texts, padding="max_length", return_tensors="pt")

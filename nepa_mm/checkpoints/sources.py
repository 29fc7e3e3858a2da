"""Where a checkpoint is: a local file or directory, a repository of the Hugging Face hub, a URL."""

import hashlib
import re
import shutil
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

from mmengine.logging import print_log

# Files of a directory in the release's format (method: the Hugging Face repositories of the authors).
RELEASE_WEIGHTS = 'model.safetensors'
RELEASE_EMA_WEIGHTS = 'pytorch_model_ema.bin'
RELEASE_CONFIG = 'config.json'
RELEASE_PREPROCESSOR = 'preprocessor_config.json'

_HUB = re.compile(r'hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?/?$')
# What the hosts and torch.hub call a published file: NAME-SHA256.pth, with the first digits of the hash; NAME-20261231
# ends with a date.
_HASH_IN_NAME = re.compile(r'-(?!20\d\d[01]\d[0-3]\d\.)([0-9a-f]{8,64})\.(pth|pt|bin|safetensors)$')
_TIMEOUT = 30  # seconds without an answer


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, or does not fit the model."""


def fetch(checkpoint: str | Path, files: Sequence[str] = (RELEASE_WEIGHTS,), optional: Sequence[str] = ()) -> Path:
    """Find a checkpoint on this machine, or bring it here.

    Args:
        checkpoint (str | Path): A local file or directory; ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``, a
            repository of the Hugging Face hub; or an ``http://`` or ``https://`` URL of a file.
        files (Sequence[str]): Files that are needed of a hub repository.
        optional (Sequence[str]): Files that are fetched as well where the repository has them.

    Returns:
        Path: The local path, a hub repository's snapshot directory, or the file that a URL was downloaded to. Hub
        repositories lie in huggingface_hub's cache, files of URLs in torch.hub's (``TORCH_HOME``); neither is fetched
        twice.

    Raises:
        CheckpointError: The path is empty or of an unknown scheme, or what it names cannot be fetched: the message says
        which file to download from where, and how to name it then. That a local path exists is not checked here.
    """
    # A Path has swallowed one of the slashes.
    text = re.sub('^(hf|https?):/+', r'\1://', str(checkpoint).strip() if checkpoint else '')
    if not text:
        raise CheckpointError(
            'The checkpoint path is empty, so training would start from scratch unnoticed. Name a file '
            '(checkpoint=... in init_cfg, or --cfg-options), or remove init_cfg to train from scratch on purpose.'
        )
    if text.startswith('hf:'):
        return _fetch_from_hub(text, files, optional)
    if text.startswith(('http://', 'https://')):
        return _fetch_url(text)
    if '://' in text:
        raise CheckpointError(
            f'Checkpoint {checkpoint}: {text.split("://")[0]!r} is no scheme that is read here; name a local file or '
            'directory, hf://OWNER/NAME[@REVISION], or an http(s) URL.'
        )
    return Path(text).expanduser()


# ---------------------------------------------------------------------- Hugging Face hub


def _fetch_from_hub(reference: str, files: Sequence[str], optional: Sequence[str]) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match = _HUB.match(reference)
    if match is None:
        raise CheckpointError(
            f'Checkpoint {reference!r} is no repository of the Hugging Face hub; expected hf://OWNER/NAME or '
            'hf://OWNER/NAME@REVISION. A single file of another name is reached by its URL, '
            f'{constants.ENDPOINT}/OWNER/NAME/resolve/REVISION/FILE.'
        )
    repo, revision = match['repo'], match['revision'] or 'main'
    folder = None
    for file in (*files, *optional):
        url = f'{constants.ENDPOINT}/{repo}/resolve/{revision}/{file}'
        try:
            path = Path(hf_hub_download(repo, file, revision=revision))
        except LocalEntryNotFoundError as error:  # also an EntryNotFoundError: neither here nor reachable
            if file in optional:
                continue
            raise CheckpointError(
                f'{reference} is not in the local cache ({constants.HF_HUB_CACHE}), and the hub cannot be reached '
                f'({_first_line(error.__cause__ or error)}).\nOn a machine with access download\n  {url}\nkeep its '
                'name, put it into a directory (with config.json beside it), and name that directory: checkpoint=DIR.'
            ) from error
        except EntryNotFoundError as error:
            if file in optional:
                continue
            hint = " It holds EMA weights; use weights='raw'." if file == RELEASE_EMA_WEIGHTS else ''
            raise CheckpointError(f'{reference} has no file {file} (looked for {url}).{hint}') from error
        except RevisionNotFoundError as error:
            raise CheckpointError(f'{reference}: the repository {repo} has no revision {revision!r}.') from error
        except GatedRepoError as error:
            raise CheckpointError(
                f'{reference} is open to some accounts only; log in with "hf auth login" (HF_TOKEN), or download {url} '
                'and name its directory.'
            ) from error
        except (RepositoryNotFoundError, HFValidationError) as error:
            raise CheckpointError(
                f'{reference}: {constants.ENDPOINT} has no repository {repo!r} that you may see; check its name, or '
                'log in with "hf auth login" (HF_TOKEN) if it is private.'
            ) from error
        except Exception as error:  # the client's other errors depend on its version
            raise CheckpointError(
                f'{reference} could not be fetched ({_first_line(error)}).\nDownload\n  {url}\nyourself, keep its '
                'name, and name its directory: checkpoint=DIR.'
            ) from error
        folder = folder or path.parent
    assert folder is not None
    return folder


# ---------------------------------------------------------------------- URLs


def url_cache(url: str) -> Path:
    """Where the file of a URL is kept: under its own name, so that two runs' ``epoch_100.pth`` do not meet.

    Args:
        url (str): The URL.

    Returns:
        Path: A path inside torch.hub's directory; the file need not exist.
    """
    import torch

    name = Path(unquote(urlparse(url).path)).name or 'checkpoint'
    return Path(torch.hub.get_dir(), 'checkpoints', hashlib.sha256(url.encode()).hexdigest()[:12], name)


def _fetch_url(url: str) -> Path:
    from filelock import FileLock

    target = url_cache(url)
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{target}.lock'):  # the processes of a node want the same file at the same time
            if not target.is_file():
                _download(url, target)
    except (OSError, HTTPException, ValueError) as error:  # urllib's errors are OSErrors
        raise CheckpointError(
            f'{url} could not be fetched ({_first_line(error)}).\nDownload it on a machine with access and name the '
            f'file: checkpoint=FILE; or put it where it would be kept:\n  {target}'
        ) from error
    return target


def _download(url: str, target: Path) -> None:
    """Download to a file beside ``target``, check it, and rename it: no partial file is ever taken for a whole one."""
    part = target.with_name(target.name + '.part')
    try:
        with urlopen(Request(url, headers={'User-Agent': 'nepa_mm'}), timeout=_TIMEOUT) as answer:
            size = answer.headers.get('Content-Length')
            told = f'{int(size) / 1e6:.1f} MB' if size else 'size not told'
            print_log(f'Downloading {url} ({told}) to {target}', logger='current')
            with part.open('wb') as stream:
                shutil.copyfileobj(answer, stream, length=1 << 20)
        got = part.stat().st_size
        if size and got != int(size):
            raise CheckpointError(f'{url}: the download broke off after {got} of {size} bytes; try again.')
        with part.open('rb') as stream:
            if is_web_page(stream.read(512)):
                raise CheckpointError(f'{url} is a web page or XML, not weights; name the URL of the file itself.')
            stream.seek(0)
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
        told_hash = _HASH_IN_NAME.search(target.name)
        if told_hash and not digest.hexdigest().startswith(told_hash[1]):
            raise CheckpointError(
                f'{url}: the SHA-256 of what was downloaded starts with {digest.hexdigest()[:8]}, its name says '
                f'{told_hash[1]}; the file was changed or damaged.'
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def is_web_page(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a web page or of XML."""
    return head.lstrip()[:1] == b'<'


def _first_line(error: BaseException) -> str:
    return f'{type(error).__name__}: {str(error).strip()}'.splitlines()[0]

"""Files of data sets and models from and to the Hugging Face hub, by its own client."""

import errno
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from hypvl.io.http import RemoteError
from hypvl.io.redact import printable, redact_url
from hypvl.io.remote import DownloadError, UnwritableError, only_one

_HUB_FILE = re.compile(r"https://huggingface\.co/datasets/([^/]+/[^/]+)/resolve/([^/]+)/([^?#]+)")


def download_from_hub(url: str, target: Path) -> bool:
    """Bring a file of a data set of the Hugging Face hub here by the hub's own client (its tokens, mirrors, resume).

    False: the address is not one of the hub, nothing was done; True: the file is there, its folder was made if needed.

    Raises:
        DownloadError: when the hub does not give it.
        UnwritableError: when it cannot be written.
    """
    match = _HUB_FILE.fullmatch(url)
    if match is None:
        return False
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    with only_one(target):
        if target.is_file():
            return True
        # Kept after a failure: the next run continues what has arrived.
        staging = target.with_name(f".{target.name}.hub")
        try:
            arrived = hf_hub_download(
                match[1], match[3], repo_type="dataset", revision=match[2], local_dir=staging
            )
            Path(arrived).replace(target)
        except (HfHubHTTPError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS):
                raise UnwritableError(target, error.strerror) from error
            reason = printable(str(error).strip().partition("\n")[0] or type(error).__name__)
            raise DownloadError(
                f"{redact_url(url)}: the hub did not give it ({reason}); check the network and run again, or put the "
                f"file at {target}."
            ) from error
        shutil.rmtree(staging, ignore_errors=True)
    return True


def model_snapshot(repo_id: str, *, revision: str | None = None, patterns: Sequence[str]) -> Path:
    """The folder of a model of the hub in its cache, with the files at its top that fit the patterns.

    Args:
        repo_id: ``owner/name``.
        revision: Branch, tag or commit; None = the main branch.
        patterns: Of the names of files, such as ``"*.json"``.

    Raises:
        DownloadError: when neither the hub nor its cache gives them.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = printable(str(error).strip().partition("\n")[0] or type(error).__name__)
        at = "" if revision is None else f" at {revision}"
        raise DownloadError(
            f"{repo_id}{at}: no such folder, and the hub did not give it ({reason}); check the name and the network, "
            "or give a folder."
        ) from error


def upload_folder(
    folder: Path,
    repo_id: str,
    *,
    message: str,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Put the files of a folder into a model repository of the hub in one commit; returns the address of the commit.

    Args:
        folder: Its files replace those of the same names; others in the repository stay.
        repo_id: ``owner/name``; made if there is none.
        message: Of the commit.
        private: Of a new repository; None = as its owner has chosen for new ones.
        revision: Branch, made if there is none; None = the main branch.
        token: None = the one that ``hf auth login`` or ``HF_TOKEN`` has left.

    Raises:
        RemoteError: when the hub does not take them.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(token=token, library_name="hypvl")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, revision=revision
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = printable(str(error).strip().partition("\n")[0] or type(error).__name__)
        raise RemoteError(
            f"{repo_id}: the hub did not take the files ({reason}); log in with `hf auth login`, and check the name "
            "and the network."
        ) from error
    return str(commit.commit_url)

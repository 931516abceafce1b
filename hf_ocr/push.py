"""A folder on the Hub: one commit, or nothing."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_ocr.card import card_for_repository

CARD = "README.md"
ATTEMPTS = 3  # of the commit, where the server fails; huggingface_hub itself repeats the other requests
# What the client raises without an answer: httpx's in huggingface_hub 1, httpx2's in 2.
_NoAnswer: type[Exception] = HfHubHTTPError.__bases__[0]
_NO_NAME = "{!r} is no name of a repository. Expected USER/NAME, of letters, digits, '-', '_' and '.'."
_TOO_LARGE = "Store the weights in half precision, and leave out what is not needed to read."


class PushError(Exception):
    """Why nothing was published, and the cure. Holds neither the token nor the requests that carried it."""


def push(
    folder: str | os.PathLike[str],
    repo: str,
    private: bool = False,
    revision: str | None = None,
    pull_request: bool = False,
    endpoint: str | None = None,
) -> str:
    """Publish the files of a folder as one commit; the repository is made if it does not exist.

    Large files travel ahead, unseen until the commit names them. So when the network dies, the repository is as it was,
    or empty, and the same call completes it: what has arrived, and what has not changed, is not sent again. Files of
    the repository that the folder lacks stay; hidden files and caches of the folder are left out. The card that is
    published reads from the repository where that of the folder reads from the folder.

    Args:
        folder: with a card, README.md.
        repo: "user/name" or "organisation/name".
        private: make the repository private; one that exists has to be private.
        revision: branch to write to, made from the main one if it does not exist; the main one when None.
        pull_request: propose the commit instead of making it.
        endpoint: URL of the Hub; HF_ENDPOINT, or the public one, when None.

    Returns:
        The URL of the commit, or of the pull request.

    Raises:
        PushError: no token (HF_TOKEN, or of `hf auth login`), no right, no network, a name that is taken, a file that
            is too large, a commit of somebody else on the way, or any other refusal.
    """
    token = get_token()
    if token is None:
        raise PushError(
            "no token. Expected one that may write, from the settings of your account: log in with `hf auth login`, or "
            "set HF_TOKEN."
        )
    if repo.count("/") != 1:
        raise PushError(_NO_NAME.format(repo))
    try:
        return _push(HfApi(endpoint, token), Path(folder), repo, private, revision, pull_request)
    except (PushError, HfHubHTTPError, _NoAnswer, OSError, RuntimeError, ValueError) as error:
        message = _reason(error, repo)
    # Raised out here, the error has no context: an HTTP error's holds the request, with the token in its headers.
    raise PushError(message.replace(token, "<token>"))


def _push(api: HfApi, folder: Path, repo: str, private: bool, revision: str | None, pull_request: bool) -> str:
    card, *others = _files(folder)
    text = card_for_repository(card.read_text(encoding="utf-8"), repo, revision).encode()
    head = _head(api, repo, private, revision, pull_request)
    attempt = 1
    while True:
        try:
            commit = api.create_commit(
                repo,
                [
                    CommitOperationAdd(CARD, text),
                    *(CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in others),
                ],
                commit_message=f"Upload {folder.resolve().name}",
                revision=revision,
                create_pr=pull_request,
                parent_commit=head,
            )
            return commit.pr_url or commit.commit_url
        except HfHubHTTPError as error:
            # A pull request may have been opened without an answer: another try could open a second.
            if error.response.status_code < 500 or pull_request or attempt == ATTEMPTS:
                raise
        time.sleep(attempt)
        attempt += 1


def _files(folder: Path) -> Iterator[Path]:
    """The card, then the others by name."""
    if not folder.is_dir():
        raise PushError(f"{folder}: no such folder. Expected one that `hf-ocr bundle` wrote.")
    card = folder / CARD
    if not card.is_file():
        raise PushError(f"{folder}: has no card. Expected {CARD}: `hf-ocr bundle MODEL FOLDER` writes it.")
    try:
        ModelCard(card.read_text(encoding="utf-8"))
    except Exception as error:  # of the YAML parser, or of a value in it
        raise PushError(f"{card}: its metadata cannot be read ({error}). Mend the lines between the two ---.") from None
    yield card
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path != card and path.is_file() and "__pycache__" not in parts and not any(p[0] == "." for p in parts):
            yield path


def _head(api: HfApi, repo: str, private: bool, revision: str | None, pull_request: bool) -> str | None:
    """The commit to build on, so that none of somebody else's on the way is buried. Makes what does not exist."""
    try:
        info = api.model_info(repo)
    except RepositoryNotFoundError:
        if pull_request:
            raise
        api.create_repo(repo, private=private)
        info = api.model_info(repo)
    if private and not info.private:
        raise PushError(
            f"{repo}: exists and is public. Expected a private one: make it private in its settings, or choose another "
            "name."
        )
    if revision is None:
        return info.sha
    try:
        return api.model_info(repo, revision=revision).sha
    except RevisionNotFoundError:
        if pull_request:
            raise
        api.create_branch(repo, branch=revision)
        return api.model_info(repo, revision=revision).sha


def _reason(error: BaseException, repo: str) -> str:
    """What went wrong, in one line, with the cure."""
    if isinstance(error, PushError):
        return str(error)
    # An upload that failed is wrapped in a RuntimeError, which names the file.
    cause: BaseException = error
    while not isinstance(cause, HfHubHTTPError | _NoAnswer) and cause.__cause__ is not None:
        cause = cause.__cause__
    where = f" ({error})" if cause is not error else ""
    said = " ".join(str(error).split())[:300]
    if isinstance(cause, HFValidationError):
        return _NO_NAME.format(repo)
    if isinstance(cause, OfflineModeIsEnabled):
        return "the network is switched off by HF_HUB_OFFLINE=1. Unset it."
    if isinstance(cause, HfHubHTTPError):
        return f"{repo}: {_refusal(cause, repo)}{where}"
    if isinstance(cause, _NoAnswer):
        return (
            f"{repo}: the Hub cannot be reached, or the connection broke ({type(cause).__name__}: {cause}){where}. "
            "Run the same again when there is a network: what has arrived is not sent again."
        )
    if "too large" in said.lower():
        return f"{repo}: a file is too large for the Hub ({said}). Nothing was published. {_TOO_LARGE}"
    return f"{repo}: {said} Nothing was published."


def _refusal(error: HfHubHTTPError, repo: str) -> str:
    status = error.response.status_code
    namespace = repo.rpartition("/")[0] or "you"
    said = f"{status}: {error.server_message}" if error.server_message else f"status {status}"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision. Expected one that exists, for a pull request."
    if isinstance(error, RepositoryNotFoundError):
        return "not found, or hidden from this token. Expected one that exists; check the name, and whose token it is."
    if status == 401:
        return f"the Hub does not accept the token ({said}). It may have expired: make another, `hf auth login`."
    if status == 403:
        return (
            f"the token has no right to do this ({said}). Expected one that may write for {namespace}; or propose the "
            "change with --pull-request."
        )
    if status == 409:
        return (
            f"the name is taken by a repository that this token does not see, or somebody writes to it just now "
            f"({said}). Run it again, or choose another name."
        )
    if status == 412:
        return f"somebody has written to it on the way ({said}). Nothing was published. Run it again to build on that."
    if status == 413:
        return f"a file is too large for the Hub ({said}). Nothing was published. {_TOO_LARGE}"
    if status >= 500:
        return f"the Hub fails ({said}), after several tries. Nothing was published. Run the same again later."
    return f"the Hub refuses ({said}). Nothing was published."

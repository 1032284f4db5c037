"""The licences that Prior Labs asks for: whether one was accepted, and tabpfn's own way to accept it.

The token is tabpfn's: TABPFN_TOKEN, or the file where tabpfn keeps it. Nothing here prints, logs or stores
it.
"""

from __future__ import annotations

from tabpfn import browser_auth
from tabpfn.errors import TabPFNHuggingFaceGatedRepoError, TabPFNLicenseError
from tabpfn.settings import settings

from tttab.core import Access, KnownModel
from tttab.errors import ModelError
from tttab.models import hub
from tttab.models.tabpfn.environment import browser_allowed
from tttab.text import keep_secret


def access(model: KnownModel) -> Access:
    """Return whether the token here and the licence it has accepted let a gated file be downloaded."""
    page = settings.tabpfn.auth_gui_url
    log_in = f"tttab models login {model.name}; without a terminal: TABPFN_TOKEN=… (log-in page: {page})"
    token = browser_auth.get_cached_token()
    keep_secret(token)
    if token is None:
        return Access("no token", "there is no token of Prior Labs", log_in)
    valid = browser_auth.verify_token(token, settings.tabpfn.auth_api_url)
    if valid is False:
        return Access("refused", "the token was refused", log_in)
    try:
        accepted = valid and browser_auth.check_license_accepted(
            token, settings.tabpfn.auth_api_url, _licence_of(model)
        )
    except TabPFNHuggingFaceGatedRepoError as error:
        return _at_the_hub(model, error)
    if accepted is None:
        again = f"later, with a network: tttab models get {model.name}"
        return Access("unknown", "the licence server does not answer", again)
    if not accepted:
        return Access("not accepted", f"it has not been accepted at {page}/account/licenses", log_in)
    return Access("accepted")


def login(model: KnownModel) -> None:
    """Have tabpfn ask for the licence; see `TabPFN.login`."""
    keep_secret(browser_auth.get_cached_token())
    try:
        with browser_allowed():
            browser_auth.ensure_license_accepted(model.repository.partition("/")[2])
    except TabPFNHuggingFaceGatedRepoError as error:
        found = _at_the_hub(model, error)
        raise ModelError(found.reason, found.advice) from error
    except TabPFNLicenseError as error:
        page = settings.tabpfn.auth_gui_url
        hint = f"with the key from {page}/account: TABPFN_TOKEN=… tttab models login {model.name}"
        raise ModelError(hub.reason_of(error), hint) from error
    finally:
        keep_secret(browser_auth.get_cached_token())


def _licence_of(model: KnownModel) -> str:
    """Return the licence's name as Prior Labs counts them: the hub's model card has it."""
    return browser_auth._get_license_name(model.repository.partition("/")[2])


def _at_the_hub(model: KnownModel, error: Exception) -> Access:
    """Say why the hub does not show a model's card."""
    page = f"https://huggingface.co/{model.repository}"
    status = getattr(error.__cause__, "code", None)
    if status in (401, 403):
        hint = f"accept the terms at {page}, then: hf auth login"
        return Access("not accepted", f"the hub has not let you in: {page}", hint)
    reason = f"the hub does not answer ({hub.reason_of(error)})"
    return Access("unknown", reason, f"later, with a network: tttab models get {model.name}")

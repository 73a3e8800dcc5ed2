"""What all Google clients share: credentials, retries, and the translation of errors.

Credentials are the application default ones (``GOOGLE_APPLICATION_CREDENTIALS``, ``gcloud auth application-default login``, or the
machine's own). An endpoint without TLS is an emulator: it gets none, since a token must not travel in the clear.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ledger.errors import ObjectMissingError, StoreUnreachable

FIRST_PAUSE_SECONDS = 0.5
MAX_RETRY_SECONDS = 120.0
"""How long one request is retried before it fails for this run."""
LOG_IN = "set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file, or run: gcloud auth application-default login"


def options(endpoint: str) -> dict[str, Any]:
    """Arguments for a client that talks to another endpoint than Google's own; none for an empty one.

    >>> options(""), sorted(options("https://bigquery-eu.example"))
    ({}, ['client_options'])
    >>> sorted(options("http://127.0.0.1:9050"))
    ['client_options', 'credentials']
    """
    if not endpoint:
        return {}
    arguments: dict[str, Any] = {"client_options": {"api_endpoint": endpoint}}
    if endpoint.startswith("http://"):
        from google.auth.credentials import AnonymousCredentials

        arguments["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return arguments


def retry() -> Any:
    """Again after 429, 5xx and broken connections, with jitter, until `MAX_RETRY_SECONDS` are over."""
    import requests
    from google.api_core import exceptions, retry

    is_transient = retry.if_exception_type(
        exceptions.TooManyRequests,
        exceptions.InternalServerError,
        exceptions.BadGateway,
        exceptions.ServiceUnavailable,
        exceptions.GatewayTimeout,
        requests.ConnectionError,
        requests.Timeout,
        ConnectionError,
    )

    def is_retried(error: Exception) -> bool:
        reasons = {str(entry.get("reason")) for entry in getattr(error, "errors", ()) if isinstance(entry, dict)}
        return is_transient(error) or bool(reasons & {"rateLimitExceeded", "backendError", "internalError"})

    return retry.Retry(predicate=is_retried, initial=FIRST_PAUSE_SECONDS, maximum=30.0, multiplier=2.0, timeout=MAX_RETRY_SECONDS)


@contextmanager
def translate_errors(location: str, rights: str) -> Iterator[None]:
    """Turns Google's errors into errors of ours. `rights` is the remedy where access is refused: what to grant, and on what."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except exceptions.NotFound as error:
        raise ObjectMissingError(
            _error_sentence(error), where=location, remedy="check the project, the dataset and the table"
        ) from error
    except (exceptions.Forbidden, exceptions.Unauthorized) as error:
        raise StoreUnreachable(f"Google refuses access: {_error_sentence(error)}", where=location, remedy=rights) from error
    except exceptions.RetryError as error:
        cause = _error_sentence(error.cause) if error.cause else _error_sentence(error)
        raise StoreUnreachable(
            f"{cause}, for {MAX_RETRY_SECONDS:.0f} seconds", where=location, remedy="it is asked again with the next run"
        ) from error
    except exceptions.BadRequest as error:
        raise StoreUnreachable(
            f"the request was not understood: {_error_sentence(error)}",
            where=location,
            remedy="check that the table is what the source reads",
        ) from error
    except exceptions.GoogleAPIError as error:
        raise StoreUnreachable(_error_sentence(error), where=location, remedy="it is asked again with the next run") from error
    except GoogleAuthError as error:
        raise StoreUnreachable(
            f"no usable Google credentials: {_error_sentence(error)}", where=location, remedy=LOG_IN
        ) from error
    except (requests.RequestException, ConnectionError, TimeoutError) as error:
        raise StoreUnreachable(_error_sentence(error), where=location, remedy="check the network and the endpoint") from error


def _error_sentence(error: BaseException) -> str:
    """The first sentence of an error, without the URL of the request."""
    message = getattr(error, "message", None) or str(error)
    code = getattr(error, "code", None)
    number = f"{int(code)} " if isinstance(code, int) else ""
    sentence = str(message).splitlines()[0] if str(message) else type(error).__name__
    return f"{number}{sentence.split(': ', 1)[-1] if '://' in sentence.split(': ', 1)[0] else sentence}"[:240]

"""What every Google client needs of us: credentials, patience, and its faults in our words.

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
"""How long one request is asked again before it is given up for this run."""
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
    found: dict[str, Any] = {"client_options": {"api_endpoint": endpoint}}
    if endpoint.startswith("http://"):
        from google.auth.credentials import AnonymousCredentials

        found["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return found


def retry() -> Any:
    """Again after 429, 5xx and broken connections, with jitter, until `MAX_RETRY_SECONDS` are over."""
    import requests
    from google.api_core import exceptions, retry

    passing = retry.if_exception_type(
        exceptions.TooManyRequests,
        exceptions.InternalServerError,
        exceptions.BadGateway,
        exceptions.ServiceUnavailable,
        exceptions.GatewayTimeout,
        requests.ConnectionError,
        requests.Timeout,
        ConnectionError,
    )

    def again(fault: Exception) -> bool:
        reasons = {str(error.get("reason")) for error in getattr(fault, "errors", ()) if isinstance(error, dict)}
        return passing(fault) or bool(reasons & {"rateLimitExceeded", "backendError", "internalError"})

    return retry.Retry(predicate=again, initial=FIRST_PAUSE_SECONDS, maximum=30.0, multiplier=2.0, timeout=MAX_RETRY_SECONDS)


@contextmanager
def translate_errors(where: str, rights: str) -> Iterator[None]:
    """Says Google's faults in ours. `rights` is the remedy where access is refused: what to grant, and on what."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except exceptions.NotFound as fault:
        raise ObjectMissingError(
            _error_sentence(fault), where=where, remedy="check the project, the dataset and the table"
        ) from fault
    except (exceptions.Forbidden, exceptions.Unauthorized) as fault:
        raise StoreUnreachable(f"Google refuses access: {_error_sentence(fault)}", where=where, remedy=rights) from fault
    except exceptions.RetryError as fault:
        cause = _error_sentence(fault.cause) if fault.cause else _error_sentence(fault)
        raise StoreUnreachable(
            f"{cause}, for {MAX_RETRY_SECONDS:.0f} seconds", where=where, remedy="it is asked again with the next run"
        ) from fault
    except exceptions.BadRequest as fault:
        raise StoreUnreachable(
            f"the question was not understood: {_error_sentence(fault)}",
            where=where,
            remedy="check that the table is what the source reads",
        ) from fault
    except exceptions.GoogleAPIError as fault:
        raise StoreUnreachable(_error_sentence(fault), where=where, remedy="it is asked again with the next run") from fault
    except GoogleAuthError as fault:
        raise StoreUnreachable(f"no usable Google credentials: {_error_sentence(fault)}", where=where, remedy=LOG_IN) from fault
    except (requests.RequestException, ConnectionError, TimeoutError) as fault:
        raise StoreUnreachable(_error_sentence(fault), where=where, remedy="check the network and the endpoint") from fault


def _error_sentence(fault: BaseException) -> str:
    """The fault's own sentence, without the request it stands in front of."""
    message = getattr(fault, "message", None) or str(fault)
    code = getattr(fault, "code", None)
    number = f"{int(code)} " if isinstance(code, int) else ""
    sentence = str(message).splitlines()[0] if str(message) else type(fault).__name__
    return f"{number}{sentence.split(': ', 1)[-1] if '://' in sentence.split(': ', 1)[0] else sentence}"[:240]

"""OpenID Connect: authorization code with PKCE and nonce, and who a provider's token says it is. Imported where providers are set up.

A token counts only if it is signed with a key of the provider, of its issuer, for this client, in time, and an answer to this very log-in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import StarletteOAuth2App
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError

from ledger.access.group_roles import MAX_GROUP_CHARACTERS
from ledger.access.provider_logins import ProviderIdentity
from ledger.settings_sections import OidcProvider

_SECONDS: Final = 10.0
"""How long the provider may take for each answer."""
_ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""Signatures with a public key; a provider may offer others, which this client cannot tell from its own."""
_MAX_CHARACTERS: Final = 255


class ProviderError(Exception):
    """A log-in at a provider fails: a sentence for who logs in. `is_refusal`: what came back is not accepted; else it may be tried again."""

    def __init__(self, sentence: str, *, is_refusal: bool = True) -> None:
        super().__init__(sentence)
        self.is_refusal = is_refusal


@dataclass(frozen=True, slots=True)
class Departure:
    """Where the browser is sent, and what the return is checked against."""

    url: str
    state: str
    nonce: str
    verifier: str


class OidcClient:
    """This server as a client of one provider."""

    def __init__(self, provider: OidcProvider) -> None:
        self.provider = provider
        self.title = provider.title or provider.name
        self._secret = provider.secret()
        options = {"scope": " ".join(provider.scopes), "code_challenge_method": "S256", "timeout": _SECONDS}
        self._app = StarletteOAuth2App(
            None,
            name=provider.name,
            client_id=provider.client_id,
            client_secret=self._secret or None,
            server_metadata_url=f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs=options,
        )

    async def depart(self, redirect_uri: str) -> Departure:
        """The address of the provider's log-in. Raises `ProviderError`."""
        with self._told():
            await self._load()
            target = await self._app.create_authorization_url(redirect_uri)
            return Departure(target["url"], target["state"], target["nonce"], target["code_verifier"])

    async def identify(self, code: str, *, redirect_uri: str, nonce: str, verifier: str) -> ProviderIdentity:
        """Who has logged in there, for the code that came back. Raises `ProviderError`."""
        with self._told():
            metadata = await self._load()
            token = await self._app.fetch_access_token(redirect_uri, code=code, code_verifier=verifier)
            if not isinstance(token.get("id_token"), str):
                raise ProviderError(f"{self.title} did not say who you are.")
            is_for_here = {
                "iss": {"essential": True, "value": self.provider.issuer},
                "aud": {"essential": True, "value": self.provider.client_id},
            }
            claims = await self._app.parse_id_token(token, nonce, claims_options=is_for_here)
            if self._are_groups_elsewhere(claims) and metadata.get("userinfo_endpoint"):
                info = await self._app.userinfo(token=token)
                if info.get("sub") != claims["sub"]:
                    raise ProviderError(f"{self.title} told of somebody else.")
                claims = {**info, **claims}
            return self._identity(claims)

    def is_issuer(self, issuer: str) -> bool:
        """Whether a return that names its issuer (RFC 9207) comes from this provider."""
        return issuer == self.provider.issuer

    async def _load(self) -> Mapping[str, Any]:
        """The provider's description of itself, which is loaded once."""
        metadata: dict[str, Any] = await self._app.load_server_metadata()
        if metadata.get("issuer") != self.provider.issuer:
            metadata.pop("_loaded_at", None)
            raise ProviderError(f"{self.title} calls itself by another name than the settings: see access.providers, issuer.")
        algorithms = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        metadata["id_token_signing_alg_values_supported"] = [name for name in algorithms if name in _ALGORITHMS]
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        self._app.client_kwargs["token_endpoint_auth_method"] = method if self._secret else "none"
        return metadata

    def _are_groups_elsewhere(self, claims: Mapping[str, Any]) -> bool:
        return self.provider.groups_claim not in claims or _has_overflown(claims, self.provider.groups_claim)

    def _identity(self, claims: Mapping[str, Any]) -> ProviderIdentity:
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_CHARACTERS:
            raise ProviderError(f"{self.title} sent a subject that is none.")
        groups = claims.get(self.provider.groups_claim)
        group_list = groups if isinstance(groups, list) else [groups]
        names = [claims.get(key) for key in ("preferred_username", "email", "name")]
        email = claims.get("email")
        return ProviderIdentity(
            provider=self.provider.name,
            issuer=self.provider.issuer,
            subject=subject,
            name=next((name for name in names if isinstance(name, str) and name.strip()), subject),
            email=email[:_MAX_CHARACTERS] if isinstance(email, str) else "",
            groups=tuple(name for name in group_list if isinstance(name, str) and 0 < len(name) <= MAX_GROUP_CHARACTERS),
            are_groups_missing=groups is None and _has_overflown(claims, self.provider.groups_claim),
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong with the provider, as a sentence that holds nothing it sent but names of claims."""
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ProviderError(f"{self.title} does not answer. Try again.", is_refusal=False) from error
        except OAuthError as error:
            raise ProviderError(f"{self.title} did not accept this log-in. Log in again.") from error
        except ExpiredTokenError as error:
            raise ProviderError(f"What {self.title} sent is not accepted: it has expired.") from error
        except ClaimError as error:
            raise ProviderError(
                f"What {self.title} sent is not accepted: its {error.claim} is not that of this log-in."
            ) from error
        except JoseError as error:
            raise ProviderError(f"What {self.title} sent is not accepted: its signature does not hold.") from error
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ProviderError(f"What {self.title} answers cannot be read.", is_refusal=False) from error


def _has_overflown(claims: Mapping[str, Any], claim: str) -> bool:
    """Whether a token says that there are more groups than fit in it: ``_claim_names`` or ``hasgroups``, as Entra does.

    >>> _has_overflown({"sub": "1", "_claim_names": {"groups": "src1"}}, "groups"), _has_overflown({"sub": "1"}, "groups")
    (True, False)
    """
    names = claims.get("_claim_names")
    return (isinstance(names, Mapping) and claim in names) or claims.get("hasgroups") in (True, "true")

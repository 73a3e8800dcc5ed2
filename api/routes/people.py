"""Routes about people, keys, sessions and roles: listed, made, changed and ended. Each change is audited; sessions of one's own are one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from api import models, preconditions, queries
from api.access.cookies import session_cookie
from api.access.gates import KnownPrincipal, People, PeopleChanges
from api.access.hosts import origin_of
from api.models import Page
from api.preconditions import Precondition, RevisionError, SeenThere, version_tag
from api.queries.gate import WholeBooks
from api.routes.answers import ROWS, AnyRows
from api.routes.read import ERROR_RESPONSES
from api.routes.write import WRITE_ERROR_RESPONSES, is_json
from ledger.access import grants, group_roles, keys, links, sessions, users
from ledger.access.principals import Grant, Principal
from ledger.access.roles import DESCRIPTIONS, ROLES, Permission
from ledger.audit import terms_digest
from ledger.books import Books
from ledger.errors import ObjectMissingError
from ledger.periods import now

UserId = Annotated[int, Path(ge=1, le=2**31 - 1, description="Id of the person.")]
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{12}$", description="Id of the key.")]
SessionId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="Id of the session.")]
_JSON = [Depends(is_json)]
_CHANGE_RESPONSES = {**WRITE_ERROR_RESPONSES, **preconditions.RESPONSES}
R = TypeVar("R", models.UserStatus, models.GroupRoles)


def router() -> APIRouter:
    """People, keys, sessions and roles under /v1."""
    routes = APIRouter(prefix="/v1", tags=["access"])
    _users(routes)
    _keys(routes)
    _sessions(routes)
    _roles(routes)
    return routes


def _users(routes: APIRouter) -> None:
    @routes.get("/users", response_model=Page[models.UserStatus], summary="The people", responses={**ERROR_RESPONSES, **ROWS})
    def list_users(books: People, answer: AnyRows) -> Response:
        """All of them, by name, disabled ones too."""
        rows = [_user(row) for row in users.list_users(books.whole)]
        return answer.whole(queries.ModelListing(models.UserStatus, rows, ["name"]), "users")

    @routes.post("/users", status_code=201, summary="Add a person", dependencies=_JSON, responses=WRITE_ERROR_RESPONSES)
    def add_user(books: PeopleChanges, request: Request, user: models.NewUser) -> models.UserLink:
        """The answer has a link by which the person chooses a password. It is not shown again."""
        row = users.add_user(books.whole, user.name, _grants(user.grants), actor=books.principal.id, email=user.email)
        return _link(books, request, f"user:{row.user_id}")

    @routes.get("/users/{user_id}", summary="A person", responses=ERROR_RESPONSES)
    def user(books: People, user_id: UserId, response: Response) -> models.UserStatus:
        """Its ETag is its revision, which a change sends as `If-Match`."""
        return _tagged(_user(users.find_user(books.whole, f"user:{user_id}")), response)

    @routes.patch("/users/{user_id}", summary="Change a person", dependencies=_JSON, responses=_CHANGE_RESPONSES)
    def change_user(
        books: PeopleChanges, user_id: UserId, change: models.UserChange, precondition: SeenThere, response: Response
    ) -> models.UserStatus:
        """In the version that `If-Match` names. Roles count at once; who is disabled is logged out everywhere."""
        name = f"user:{user_id}"
        row = users.change_user(
            books.whole,
            name,
            actor=books.principal.id,
            roles=None if change.grants is None else _grants(change.grants),
            is_disabled=change.disabled,
            check=lambda session, user: _require(session, name, precondition, user.grants, is_disabled=user.state == "disabled"),
        )
        return _tagged(_user(row), response)

    @routes.post("/users/{user_id}/link", summary="A link for a new password", status_code=201, responses=WRITE_ERROR_RESPONSES)
    def make_link(books: PeopleChanges, request: Request, user_id: UserId) -> models.UserLink:
        """Earlier links no longer hold. The log-ins of the person end when a password is chosen."""
        return _link(books, request, f"user:{user_id}")

    @routes.delete("/users/{user_id}/sessions", status_code=204, summary="Log a person out", responses=WRITE_ERROR_RESPONSES)
    def end_user_sessions(books: PeopleChanges, user_id: UserId) -> None:
        """Everywhere, within a second."""
        users.end_user_sessions(books.whole, f"user:{user_id}", actor=books.principal.id)


def _keys(routes: APIRouter) -> None:
    @routes.get("/keys", response_model=Page[models.KeyStatus], summary="The API keys", responses={**ERROR_RESPONSES, **ROWS})
    def list_keys(books: People, answer: AnyRows) -> Response:
        """Newest first, revoked and expired ones too. The keys themselves are stored nowhere."""
        rows = [_key(row) for row in keys.list_keys(books.whole)]
        return answer.whole(queries.ModelListing(models.KeyStatus, rows, ["key_id"]), "keys")

    @routes.post("/keys", status_code=201, summary="Make an API key", dependencies=_JSON, responses=WRITE_ERROR_RESPONSES)
    def create_key(books: PeopleChanges, key: models.NewKey) -> models.KeyCreated:
        """The answer has the key. It is not shown again."""
        expires_at = now() + timedelta(days=key.days) if key.days else None
        row, text = keys.create_key(books.whole, key.name, _grants(key.grants), actor=books.principal.id, expires_at=expires_at)
        return models.KeyCreated(key=text, status=_key(row))

    @routes.delete("/keys/{key_id}", status_code=204, summary="Revoke an API key", responses=WRITE_ERROR_RESPONSES)
    def revoke_key(books: PeopleChanges, key_id: KeyId) -> None:
        """It is refused within a second. Its row stays."""
        keys.revoke_key(books.whole, key_id, actor=books.principal.id)


def _sessions(routes: APIRouter) -> None:
    @routes.get(
        "/sessions", response_model=Page[models.SessionStatus], summary="Log-ins in force", responses={**ERROR_RESPONSES, **ROWS}
    )
    def list_sessions(principal: KnownPrincipal, request: Request, answer: AnyRows) -> Response:
        """One's own; all of them for who may see people."""
        rows = _own_sessions(request, principal, Permission.PEOPLE_READ)
        return answer.whole(queries.ModelListing(models.SessionStatus, rows, ["session_id"]), "sessions")

    @routes.delete("/sessions/{session_id}", status_code=204, summary="End a log-in", responses=WRITE_ERROR_RESPONSES)
    def end_session(principal: KnownPrincipal, request: Request, session_id: SessionId) -> None:
        """One of one's own; any for who may change people. It ends within a second."""
        if not any(row.session_id == session_id for row in _own_sessions(request, principal, Permission.PEOPLE_WRITE)):
            raise ObjectMissingError("no session has that id", where=session_id, remedy="GET /v1/sessions lists them")
        sessions.end_session(request.app.state.books, session_id, actor=principal.id)


def _roles(routes: APIRouter) -> None:
    @routes.get("/roles", response_model=Page[models.RoleRow], summary="The roles", responses={**ERROR_RESPONSES, **ROWS})
    def list_roles(_: KnownPrincipal, answer: AnyRows) -> Response:
        """What each may see and change. The table is fixed; roles are given to people, keys and groups."""
        rows = [
            models.RoleRow(
                role=role, description=DESCRIPTIONS[role], permissions=sorted(permission.value for permission in permissions)
            )
            for role, permissions in ROLES.items()
        ]
        return answer.whole(queries.ModelListing(models.RoleRow, rows, ["role"]), "roles")

    @routes.get(
        "/group-roles", response_model=Page[models.GroupRoles], summary="Roles of groups", responses={**ERROR_RESPONSES, **ROWS}
    )
    def list_group_roles(books: People, answer: AnyRows) -> Response:
        """Groups of the providers of log-in that have roles."""
        rows = [_group(row) for row in group_roles.list_groups(books.whole)]
        return answer.whole(queries.ModelListing(models.GroupRoles, rows, ["provider", "group"]), "group-roles")

    @routes.put("/group-roles", summary="Give a group roles", dependencies=_JSON, responses=_CHANGE_RESPONSES)
    def change_group_roles(
        books: PeopleChanges, change: models.GroupRolesChange, precondition: SeenThere, response: Response
    ) -> models.GroupRoles:
        """All of its roles from now on, in place of those of the revision that `If-Match` names; none takes them. They count at once."""
        row = group_roles.set_group(
            books.whole,
            change.provider,
            change.group,
            _grants(change.grants),
            actor=books.principal.id,
            check=lambda session, group: _require(session, f"{group.provider}/{group.group}", precondition, group.grants),
        )
        return _tagged(_group(row), response)


def _own_sessions(request: Request, principal: Principal, permission: Permission) -> list[models.SessionStatus]:
    """The sessions of a person; all of them for who has the permission over the whole."""
    books: Books = request.app.state.books
    current_id = sessions.hash_of(session_cookie(request.scope))
    return [
        models.SessionStatus(**asdict(row) | {"provider": row.provider or None}, current=current_id.startswith(row.session_id))
        for row in sessions.list_sessions(books)
        if principal.teams(permission) is None or principal.id == f"user:{row.user_id}"
    ]


def _link(books: WholeBooks, request: Request, name: str) -> models.UserLink:
    token, purpose = links.user_link(books.whole, name, actor=books.principal.id)
    link = f"{origin_of(request.scope)}/setup?token={token}"
    return models.UserLink(user=_user(users.find_user(books.whole, name)), link=link, purpose=purpose)


def _require(
    session: Session, subject: str, precondition: Precondition, roles: Iterable[Grant], *, is_disabled: bool = False
) -> None:
    """Raises `RevisionError`, with both versions, unless roles and state are those that the change was made from."""
    terms = grants.terms_of(roles, is_disabled=is_disabled)
    if not precondition.holds(terms_digest(terms)):
        raise RevisionError(
            subject, expected_version=grants.earlier_terms(session, subject, precondition.versions), current_version=terms
        )


def _tagged(row: R, response: Response) -> R:
    response.headers["ETag"] = version_tag(row.revision)
    return row


def _grants(texts: list[str]) -> list[Grant]:
    return [Grant.parse(text) for text in texts]


def _fields(row: Any) -> dict[str, Any]:
    return asdict(row) | {"grants": [str(grant) for grant in row.grants]}


def _user(row: users.UserRow) -> models.UserStatus:
    return models.UserStatus(**_fields(row))


def _key(row: keys.KeyRow) -> models.KeyStatus:
    return models.KeyStatus(**_fields(row))


def _group(row: group_roles.GroupRow) -> models.GroupRoles:
    return models.GroupRoles(**_fields(row), revision=row.revision)

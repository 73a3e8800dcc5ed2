"""The verbs of the client about people, keys, sessions and roles, and about erasures."""

from __future__ import annotations

from api import models
from api.client_connection import Connection, if_match, segment
from api.models import Page


class People(Connection):
    """Who may see and change what."""

    def users(self) -> Page[models.UserStatus]:
        """The people, by name."""
        return self._get(Page[models.UserStatus], "/v1/users")

    def add_user(self, user: models.NewUser) -> models.UserLink:
        """Adds a person; the answer has the link by which a password is chosen, once."""
        return self._put(models.UserLink, "POST", "/v1/users", user)

    def user(self, user_id: int) -> models.UserStatus:
        """One person."""
        return self._get(models.UserStatus, f"/v1/users/{user_id}")

    def change_user(self, user_id: int, change: models.UserChange, *, revision: str | None = None) -> models.UserStatus:
        """Gives a person other roles, keeps it out or lets it in; what the change does not name stays.

        Without `revision` it changes whatever is there. Raises `StaleProblem` if the person has another one.
        """
        return self._put(models.UserStatus, "PATCH", f"/v1/users/{user_id}", change, if_match=if_match(revision))

    def make_user_link(self, user_id: int) -> models.UserLink:
        """A one-time link for a new password."""
        return self._put(models.UserLink, "POST", f"/v1/users/{user_id}/link", None)

    def end_user_sessions(self, user_id: int) -> None:
        """Logs a person out everywhere."""
        self._send("DELETE", f"/v1/users/{user_id}/sessions")

    def keys(self) -> Page[models.KeyStatus]:
        """The API keys, without their secrets."""
        return self._get(Page[models.KeyStatus], "/v1/keys")

    def create_key(self, key: models.NewKey) -> models.KeyCreated:
        """Makes an API key; the answer has it, once."""
        return self._put(models.KeyCreated, "POST", "/v1/keys", key)

    def revoke_key(self, key_id: str) -> None:
        """Ends an API key."""
        self._send("DELETE", f"/v1/keys/{segment(key_id)}")

    def sessions(self) -> Page[models.SessionStatus]:
        """Log-ins in force: one's own, or all of them for who may see people."""
        return self._get(Page[models.SessionStatus], "/v1/sessions")

    def end_session(self, session_id: str) -> None:
        """Ends a log-in."""
        self._send("DELETE", f"/v1/sessions/{segment(session_id)}")

    def roles(self) -> Page[models.RoleRow]:
        """What each role may see and change."""
        return self._get(Page[models.RoleRow], "/v1/roles")

    def preview_erasure(self, erasure: models.ErasureRequest) -> models.Erasure:
        """What an erasure would do; its `plan` confirms the same erasure."""
        return self._put(models.Erasure, "POST", "/v1/erasures/preview", erasure)

    def erase(self, erasure: models.ConfirmedErasure) -> models.Erasure:
        """Erases a person or a period; it cannot be undone."""
        return self._put(models.Erasure, "POST", "/v1/erasures", erasure)

    def group_roles(self) -> Page[models.GroupRoles]:
        """Groups of the providers of log-in that have roles."""
        return self._get(Page[models.GroupRoles], "/v1/group-roles")

    def change_group_roles(self, change: models.GroupRolesChange, *, revision: str | None = None) -> models.GroupRoles:
        """Gives a group these roles and no others. `revision` as for `change_user`."""
        return self._put(models.GroupRoles, "PUT", "/v1/group-roles", change, if_match=if_match(revision))

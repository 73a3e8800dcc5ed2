"""Backups, and homes restored from them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from rootcost.terminal.console import Home, home_of, open_books, out, out_json, out_rows, say, steps

if TYPE_CHECKING:
    from ledger.backup import BackupReport
    from ledger.errors import RootCostError
    from ledger.settings import Settings

Output = Annotated[Literal["text", "json"], typer.Option("--format", help="text or json.")]
Place = Annotated[str, typer.Argument(metavar="DIR|s3://…", help="The folder or prefix with the backups.", show_default=False)]


class _BackupGroup(TyperGroup):
    """`rootcost backup DIR` means `rootcost backup create DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts the command's name before an address or an option."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["create", *args]
        return super().parse_args(ctx, args)


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    group = typer.Typer(
        cls=_BackupGroup, help="Back the ledger up, also while it is served. `rootcost backup DIR` is short for create."
    )
    group.command(
        "create", epilog="Example: rootcost backup create /mnt/backups --keep 14; rootcost backup s3://bucket/rootcost"
    )(create)
    group.command("list", epilog="Example: rootcost backup list /mnt/backups")(list_)
    group.command("verify", epilog="Example: rootcost backup verify /mnt/backups --at 20261101T021500004711Z-1a2b")(verify)
    app.add_typer(group, name="backup", epilog="Example: rootcost backup /mnt/backups")
    app.command(epilog="Example: rootcost restore /mnt/backups --home .rootcost-restored")(restore)


def create(
    address: Annotated[
        str,
        typer.Argument(
            metavar="[DIR|s3://…]", help="Folder or prefix to write to. Default: the setting backup.address.", show_default=False
        ),
    ] = "",
    keep: Annotated[
        int | None, typer.Option(min=1, help="Then remove all but this many of this ledger's backups there.", show_default=False)
    ] = None,
    output: Output = "text",
    home: Home = None,
) -> None:
    """Back up database, tables, settings, received telemetry that is not booked yet, and fetched bills.

    Only what is new is copied. The token is not in it, nor the settings store, backup and alerts.webhook_url; keep secrets elsewhere.
    Exit code 1 if a file was damaged before: the rest is backed up.
    """
    from ledger.backup import make_backup
    from ledger.errors import UsageError

    with open_books(home) as books, steps() as progress:
        target = address or books.settings.backup.address
        if not target:
            remedy = "name one: rootcost backup DIR, or set backup.address"
            raise UsageError("no folder to write to", where="backup", remedy=remedy)
        report = make_backup(
            books,
            target,
            actor="cli",
            keep=keep,
            progress=progress.of("Backing up"),
            on_wait=lambda: say("Waiting for another rootcost process that is writing …"),
        )
    if output == "json":
        out_json(asdict(report))
    else:
        _print(report)
    if report.damaged or report.unreadable:
        raise typer.Exit(1)


def list_(address: Place, output: Output = "text", home: Home = None) -> None:
    """List the backups at a location, oldest first. Exit code 1 if one cannot be read."""
    from ledger.backup import list_backups

    manifests, errors = list_backups(address, _settings(home).backup.s3_options)
    rows = [
        {
            "backup_id": m.backup_id, "made_at": m.made_at, "files": len(m.files), "bytes": m.size_bytes, "version": m.version,
            "home": m.home, "ledger_id": m.ledger_id, "damaged": list(m.damaged),
        }
        for m in manifests
    ]  # fmt: skip
    if output == "json":
        out_rows(rows)
    else:
        for row in rows:
            size = f"{row['files']:>8,} files {row['bytes']:>18,} bytes"
            out(f"{row['backup_id']}  {size}  {row['home']}{'  (with damaged files)' if row['damaged'] else ''}")
        if not rows:
            say(f"{address} holds no backup.")
    _exit_on(errors)


def verify(
    address: Place,
    at: Annotated[
        str | None, typer.Option("--at", metavar="ID", help="Only this backup. Default: all.", show_default=False)
    ] = None,
    output: Output = "text",
    home: Home = None,
) -> None:
    """Read everything that backups consist of, and compare it with its SHA-256. Exit code 1 if something is damaged."""
    from ledger.backup import list_backups, verify_backups
    from ledger.backup_manifest import find_manifest
    from ledger.locations import location
    from ledger.plurals import counted

    options = _settings(home).backup.s3_options
    manifests, errors = list_backups(address, options)
    if at is not None or not (manifests or errors):
        manifests, errors = [find_manifest(location(address, options), at)], []
    with steps() as progress:
        damages = verify_backups(address, manifests, options, progress.of("Verifying"))
    remedy = "remove the file, and the next backup copies it again if the ledger still has it; restore other backups only"
    if output == "json":
        backup_ids = [manifest.backup_id for manifest in manifests]
        out_json({"backups": backup_ids, "damages": [asdict(d) for d in damages], "errors": [str(error) for error in errors]})
    else:
        for damage in damages:
            say(
                f"{address}/{damage.path} {damage.reason}: {', '.join(damage.home_paths)} of {', '.join(damage.backup_ids)} — {remedy}"
            )
        contents = len({file.digest for manifest in manifests for file in manifest.files.values()})
        out(
            f"{counted(len(manifests), 'backup')}, {counted(contents, 'content')}: {'✗ damaged' if damages else '✓ as they were written'}"
        )
    _exit_on(errors)
    if damages:
        raise typer.Exit(1)


def restore(
    address: Place,
    at: Annotated[
        str | None, typer.Option("--at", metavar="ID", help="Which backup. Default: the newest.", show_default=False)
    ] = None,
    output: Output = "text",
    home: Home = None,
) -> None:
    """Restore a backup into a new home: --home names a folder that is empty or not there yet.

    Every file is held against its checksum. Tables and database go into the new home, unless ROOTCOST_STORE__URI or
    ROOTCOST_STORE__DATABASE_URL name an empty store. A restore that was cut off is finished by the same command.
    """
    from ledger.errors import UsageError
    from ledger.plurals import counted
    from ledger.restore import restore as restore_backup

    folder = home_of(home)
    if folder is None:
        raise UsageError("where to is not said", where="--home", remedy="name a folder that is empty or not there yet")
    with steps() as progress:
        report = restore_backup(
            address, folder, actor="cli", backup_id=at, options=_store_options(), progress=progress.of("Restoring")
        )
    if output == "json":
        out_json(asdict(report))
        return
    out(
        f"Restored {report.backup_id} of {report.made_at[:19]} to {report.home}: {counted(report.files, 'file')}, {report.size_bytes:,} bytes"
    )
    for path in report.damaged:
        say(f"{path} was damaged before the backup: see rootcost --home {report.home} verify")
    for repair in report.repairs:
        say(repair)
    if report.settings_left_out:
        say(f"Not in the backup, set again where needed: {', '.join(report.settings_left_out)}")
    say(f"Next: rootcost --home {report.home} verify")


def _print(report: BackupReport) -> None:
    from ledger.plurals import counted

    out(f"{report.backup_id} in {report.address}: {counted(report.files, 'file')}, {report.size_bytes:,} bytes")
    out(f"New: {counted(report.new_files, 'file')}, {report.new_bytes:,} bytes")
    if report.removed_backups:
        out(f"Removed: {', '.join(report.removed_backups)}, and {counted(report.removed_files, 'file')} that only they needed")
    for path in report.damaged:
        say(f"{path} is damaged or missing in the ledger — rootcost verify says what brings it back")
    for path in report.links_left_out:
        say(f"{path} is a symbolic link; it is not in the backup")
    for error in report.unreadable:
        say(f"{error}; no old backup was removed")
    if report.settings_left_out:
        say(f"Not in the backup: {', '.join(report.settings_left_out)}, and the token")


def _exit_on(errors: list[RootCostError]) -> None:
    for error in errors:
        say(f"rootcost: {error}")
    if errors:
        raise typer.Exit(1)


def _settings(home: Path | None) -> Settings:
    from ledger.settings import load

    return load(home_of(home))


def _store_options() -> dict[str, str]:
    """Options to read a backup with: of the settings in force where the command is run. The new home has none yet."""
    from ledger.settings import load

    return dict(load().backup.s3_options)

"""The service, the demo, the configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from rootcost.terminal.console import Home, attribution_lock, folder_of, home_of, open_books, out, out_json, say, write_lock


def add_to(app: typer.Typer) -> None:
    """Registers these commands."""
    app.command(epilog="Example: rootcost serve --port 9000 --ui-port 9001")(serve)
    app.command(epilog="Example: rootcost demo && rootcost serve")(demo)
    app.command(epilog="Example: rootcost maintenance --dry-run")(maintenance)
    config = typer.Typer(no_args_is_help=True, help="The settings in force.")
    config.command("show", epilog="Example: rootcost config show --format json")(config_show)
    app.add_typer(config, name="config")


def serve(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the API. Default: serve.port (8787).", show_default=False)
    ] = None,
    ui_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the dashboard. Default: serve.ui_port (8501).", show_default=False),
    ] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Whether to start the dashboard.")] = True,
    home: Home = None,
) -> None:
    """Start the API, the scheduler and the dashboard. Ctrl-C stops them all.

    Everything listens on this machine only. Writing needs the token that the first start prints.
    """
    from rootcost.service.serve import serve as run_service

    code = run_service(home_of(home), port=port, ui_port=ui_port, ui=ui)
    if code:
        raise typer.Exit(code)


def demo(
    seed: Annotated[int, typer.Option(help="Same seed, same company.")] = 7,
    scale: Annotated[float, typer.Option(min=0.01, help="Size of the company; 1 takes seconds.")] = 1.0,
    home: Home = None,
) -> None:
    """Run a made-up company's month through the real ingestors, and show what comes out.

    Bills, gateway logs and telemetry in real formats; no server, no account. The ledger stays where `rootcost serve` finds it.
    """
    from rootcost.demo.story import run_demo

    code = run_demo(folder_of(home), scale=scale, seed=seed)
    if code:
        raise typer.Exit(code)


def maintenance(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    output: Annotated[Literal["text", "json"], typer.Option("--format", help="text or json.")] = "text",
    home: Home = None,
) -> None:
    """Remove from the disk what nobody needs any more and what is older than its retention, and merge small files. No figure changes.

    `rootcost serve` does it by itself. How long things stay is set under [maintenance].
    """
    from ledger.maintenance import maintain
    from rootcost.operations.retention import remove_outdated

    with open_books(home) as books, attribution_lock(books), write_lock(books):
        removal_counts = remove_outdated(books, dry_run=dry_run)
        report = maintain(books, dry_run=dry_run)
    if output == "json":
        out_json(asdict(report) | {"outdated": removal_counts.counts, "settled": removal_counts.settled})
        return
    words = ("would be", "Would remove") if dry_run else ("were", "Removed")
    out(f"{words[1]} {report.removed_files:,} files ({report.removed_bytes / 1e6:,.1f} MB) that no table needs")
    out(f"{report.merged_files:,} small files {words[0]} merged")
    out(
        f"{report.unshown_partitions:,} partitions of runs that nobody shows, {report.temporary_files:,} temporary files {words[0]} removed"
    )
    for name, count in removal_counts.counts.items():
        out(f"{count:,} {name.replace('_', ' ')} {words[0]} removed: older than their retention")
    if removal_counts.settled:
        out(f"{', '.join(removal_counts.settled)} {words[0]} settled: the costs stay, and are not computed again")


def config_show(
    output: Annotated[Literal["toml", "json"], typer.Option("--format", help="toml (with comments) or json.")] = "toml",
    home: Home = None,
) -> None:
    """Print every setting in force, with what it means, as a rootcost.toml."""
    from ingest.sources import check_trusted_sources
    from ledger.settings import load
    from rootcost.terminal.settings_toml import as_toml, as_values

    settings = load(home_of(home))
    check_trusted_sources(settings.ingest)
    if output == "json":
        out_json(as_values(settings))
    else:
        out(as_toml(settings))
        say("Environment: ROOTCOST_SECTION__NAME, e.g. ROOTCOST_SERVE__PORT=9000")

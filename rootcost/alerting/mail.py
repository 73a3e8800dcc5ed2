"""Alerts by e-mail: one message to all recipients of a channel, with the id of the delivery as its Message-ID."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urlsplit

from ledger.addresses import masked
from ledger.alerting.outbox import Outcome
from rootcost.alerting.messages import Parcel, group_text, group_title, one_line, shortened

if TYPE_CHECKING:
    from ledger.alert_settings import Channel

_STEP_SECONDS: Final = 8.0
"""How long each step of the exchange may take."""


def send_mail(channel: Channel, parcel: Parcel) -> Outcome:
    """Makes one attempt. A server that refuses some recipients has accepted the message for the others: it is not sent again."""
    address = urlsplit(channel.address())
    try:
        with _connection(address) as server:
            refused_recipients = server.send_message(mail_of(channel, parcel))
    except smtplib.SMTPResponseException as error:
        reason = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
        return Outcome(status=error.smtp_code, error=f"SMTP {error.smtp_code}: {shortened(one_line(reason), 200)}")
    except smtplib.SMTPRecipientsRefused as error:
        code = next((status for status, _ in error.recipients.values()), None)
        return Outcome(status=code, error=f"all recipients are refused: {shortened(str(error.recipients), 200)}")
    except (smtplib.SMTPException, OSError, ValueError) as error:
        return Outcome(error=masked(f"{type(error).__name__}: {error}"))
    warning = f"refused: {', '.join(sorted(refused_recipients))}" if refused_recipients else None
    return Outcome(status=250, warning=warning)


def _connection(address: SplitResult) -> smtplib.SMTP:
    host, context = address.hostname or "", ssl.create_default_context()
    server: smtplib.SMTP
    if address.scheme == "smtps":
        server = smtplib.SMTP_SSL(host, address.port or 465, timeout=_STEP_SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, address.port or 25, timeout=_STEP_SECONDS)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=context)
            server.ehlo()
        elif address.password:
            server.close()
            raise ValueError("the server offers no encryption, and a password is not sent without")
    if address.username:
        server.login(unquote(address.username), unquote(address.password or ""))
    return server


def mail_of(channel: Channel, parcel: Parcel) -> EmailMessage:
    """The message."""
    mail = EmailMessage()
    mail["Subject"] = shortened(one_line(group_title(parcel.messages)), 200)
    mail["From"] = channel.sender
    mail["To"] = ", ".join(channel.recipients)
    mail["Date"] = format_datetime(parcel.at)
    mail["Message-ID"] = f"<{parcel.batch_id}@rootcost.alerts>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(group_text(parcel.messages) + f"\n\nid {parcel.batch_id}\n")
    return mail

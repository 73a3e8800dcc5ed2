"""Brightwater Freight, a company that does not exist: its teams, agents, accounts, models and contracts.

Everything here is a fact about the company, known to the traffic and to the bill; nothing here knows how costs are attributed.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

COMPANY = "Brightwater Freight"
CURRENCY = "USD"

PAYER = "111122223333"
PRODUCTION = "111122223333"
SANDBOX = "444455556666"
ANALYTICS = "777788889999"
ACCOUNT_NAMES = {PRODUCTION: "brightwater-production", SANDBOX: "brightwater-sandbox", ANALYTICS: "brightwater-analytics"}

OPENAI_ORGANISATION = "org-brightwater"
OPENAI_PROJECT = "proj_brightwater_main"

US, EU = "us-east-1", "eu-central-1"
USAGE_PREFIX = {US: "USE1", EU: "EUC1"}

PRIVATE_RATE = Decimal("0.12")
"""Discount that Brightwater negotiated with AWS on every Bedrock token."""

EXPORT = "brightwater-cur2"
EXPORT_PREFIX = "exports"
BUCKET = "brightwater-billing"

GATEWAY_ROLE = f"arn:aws:sts::{PRODUCTION}:assumed-role/litellm-gateway/i-0b5d0c7e4a91f2d38"
RESEARCH_ROLE = f"arn:aws:sts::{PRODUCTION}:assumed-role/research-service/ecs-task"
CONTRACT_ROLE = f"arn:aws:sts::{PRODUCTION}:assumed-role/contract-review-runtime/BedrockAgentCore"
INVOICE_ROLE = f"arn:aws:sts::{PRODUCTION}:assumed-role/invoice-workers/ecs-task"
HACKDAY_ROLE = f"arn:aws:sts::{PRODUCTION}:assumed-role/hackday/ecs-task"
SHADOW_TAGGED = f"arn:aws:iam::{SANDBOX}:user/campaign-copy-script"
SHADOW_PLAIN = f"arn:aws:iam::{PRODUCTION}:user/tmp-eval-2025"
SHADOW_REGISTERED = f"arn:aws:sts::{ANALYTICS}:assumed-role/bi-report-job/nightly"

GPU_NODES = tuple(f"i-0a7c31e9d5f0842{n:02x}" for n in range(1, 65))
VECTOR_STORE = f"arn:aws:aoss:{US}:{PRODUCTION}:collection/8kq2v0x6m4r1"
AGENT_RUNTIME = f"arn:aws:bedrock-agentcore:{EU}:{PRODUCTION}:runtime/contract_review-x7Qm2LpV9d"


@dataclass(frozen=True, slots=True)
class Model:
    """A model as each side of the money spells it.

    `name` is what callers send, `billed` what the bill calls it, `book` the key in the public price book.
    """

    name: str
    provider: str
    gateway_provider: str
    billed: str
    book: str
    region: str = ""
    caches: bool = False

    @property
    def on_aws(self) -> bool:
        """Whether AWS bills it."""
        return self.provider == "aws.bedrock"


SONNET = Model(
    "anthropic.claude-sonnet-4-6", "aws.bedrock", "bedrock", "Claude4.6Sonnet", "anthropic.claude-sonnet-4-6", US, caches=True
)
SONNET_EU = Model(
    "eu.anthropic.claude-sonnet-4-6",
    "aws.bedrock",
    "bedrock",
    "Claude4.6Sonnet",
    "eu.anthropic.claude-sonnet-4-6",
    EU,
    caches=True,
)
HAIKU = Model(
    "anthropic.claude-haiku-4-5-20251001-v1:0",
    "aws.bedrock",
    "bedrock",
    "Claude4.5Haiku",
    "anthropic.claude-haiku-4-5-20251001-v1:0",
    US,
    caches=True,
)
NOVA_LITE = Model("amazon.nova-lite-v1:0", "aws.bedrock", "bedrock", "NovaLite", "amazon.nova-lite-v1:0", US)
NOVA_PRO = Model("amazon.nova-pro-v1:0", "aws.bedrock", "bedrock", "NovaPro", "amazon.nova-pro-v1:0", US)
GPT_MINI = Model("gpt-5-mini", "openai", "openai", "gpt-5-mini-2025-08-07", "gpt-5-mini", caches=True)
GPT_41 = Model("gpt-4.1", "openai", "openai", "gpt-4.1-2025-04-14", "gpt-4.1", caches=True)
EMBEDDING = Model("text-embedding-3-small", "openai", "openai", "text-embedding-3-small", "text-embedding-3-small")
LLAMA = Model("llama-3.3-70b-instruct-awq", "vllm", "vllm", "", "")
"""Served on Brightwater's own GPU node: no token price, the node is what costs."""

MODELS = (SONNET, SONNET_EU, HAIKU, NOVA_LITE, NOVA_PRO, GPT_MINI, GPT_41, EMBEDDING, LLAMA)

METERS = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "output_tokens")
"""The disjoint quantities a call is billed by."""

AWS_METER = {
    "input_tokens": "input-tokens",
    "cache_read_tokens": "cache-read-input-token-count",
    "cache_write_5m_tokens": "cache-write-input-token-count",
    "output_tokens": "output-tokens",
}
OPENAI_METER = {"input_tokens": "input_tokens", "cache_read_tokens": "cached_input_tokens", "output_tokens": "output_tokens"}


@dataclass(frozen=True, slots=True)
class Agent:
    """A registered agent. `moves` is (day of month, new team), for the one that changes hands."""

    name: str
    team: str
    aliases: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    moves: tuple[int, str] | None = None

    def team_on(self, day: int) -> str:
        """The team that owns the agent on a day of the demo month.

        >>> Agent("reader", "Finance", moves=(16, "Operations")).team_on(15)
        'Finance'
        """
        return self.moves[1] if self.moves and day >= self.moves[0] else self.team


SUPPORT_BOT = Agent("support-bot", "Care", aliases=("Brightwater Assistant",))
RESEARCHER = Agent("researcher", "Data", services=("research-service",))
CODER = Agent("coder", "Engineering", aliases=("coder-v2",))
LEAD_WRITER = Agent("lead-writer", "Growth", credentials=("growth-lead-writer",))
INVOICE_READER = Agent("invoice-reader", "Finance", moves=(16, "Operations"))
LEDGER_POSTER = Agent("ledger-poster", "Finance")
CONTRACT_REVIEW = Agent("contract-review", "Legal", aliases=(AGENT_RUNTIME,))
ROUTE_PLANNER = Agent("route-planner", "Operations")
DOC_INDEXER = Agent("doc-indexer", "Data")
PRICING_NOTEBOOK = Agent("pricing-notebook", "Data", credentials=("data-notebooks",))
BI_REPORT = Agent("bi-report-job", "Data", principals=(SHADOW_REGISTERED,))

AGENTS = (
    SUPPORT_BOT, RESEARCHER, CODER, LEAD_WRITER, INVOICE_READER, LEDGER_POSTER, CONTRACT_REVIEW, ROUTE_PLANNER, DOC_INDEXER,
    PRICING_NOTEBOOK, BI_REPORT,
)  # fmt: skip

UNREGISTERED = "hackday-bot"
"""Spends without being registered. (ID-2)"""

UNKNOWN_KEY = "legacy-default-key"
"""A gateway key nobody registered, used without any agent name."""


def registry_csv(month: str) -> str:
    """The registry file of `rootcost agents import`."""
    lines = ["agent,team,valid_from,valid_to,aliases,credentials,principals,services,resources,account,region"]
    for agent in AGENTS:
        names = ";".join(agent.aliases), ";".join(agent.credentials), ";".join(agent.principals), ";".join(agent.services)
        lines.append(",".join([agent.name, agent.team, "2026-01-01", "", *names, "", "", ""]))
        if agent.moves:
            day, team = agent.moves
            lines.append(",".join([agent.name, team, f"{month}-{day:02d}", "", *names, "", "", ""]))
    return "\n".join(lines) + "\n"


def settings_toml() -> str:
    """The rootcost.toml that goes with the demo."""
    return f"""\
# Settings of the demo company, {COMPANY}. `rootcost config show` lists every setting.

[ingest]
trusted_sources = ["otlp", "litellm"]

[[attribution.defaults]]
provider = "AWS"
account = "{PRODUCTION}"
region = "{US}"

[[attribution.defaults]]
provider = "OpenAI"
account = "{OPENAI_PROJECT}"

[[attribution.shared]]
name = "AWS support, by metered cost"
provider = "AWS"
service = "AWS Support (Business)"
method = "proportional"
"""

"""RA-1, RA-1b: one provider, however a log or a bill spells it; what is no provider is none."""

from __future__ import annotations

import pytest

from attribution.classification import names


@pytest.mark.parametrize(
    ("written", "provider"),
    [
        ("aws.bedrock", "AWS"),
        ("Amazon_Bedrock", "AWS"),
        (" bedrock ", "AWS"),
        ("google-vertexai", "Google Cloud"),
        ("gcp.gen_ai", "Google Cloud"),
        ("Azure OpenAI", "Microsoft"),
        ("openai.azure", "Microsoft"),
        ("MISTRALAI", "Mistral AI"),
        ("openrouter.ai", "OpenRouter"),
        ("acme cloud", "acme cloud"),
        ("openai.completion", "OpenAI"),
        ("anthropic.messages", "Anthropic"),
        ("google.generative-ai", "Google Cloud"),
        ("google.vertex.chat", "Google Cloud"),
        ("vertex.anthropic.messages", "Google Cloud"),
        ("amazon-bedrock.anthropic", "AWS"),
        ("azure-openai.responses", "Microsoft"),
        ("mistral.chat", "Mistral AI"),
        ("cohere.textEmbedding", "Cohere"),
        ("acme.chat", "acme.chat"),
        ("openai.acme", "openai.acme"),
        (".chat", ".chat"),
    ],
)
def test_a_provider_is_one_however_it_is_written(written: str, provider: str) -> None:
    assert names.called_provider(written) == names.provider(written) == provider


@pytest.mark.parametrize(
    "written", ["Strands Agents", "LangChain", "mastra", "pydantic-ai", "LlamaIndex", "_OTHER", "unknown", "n/a", "", " - ", None]
)
def test_a_framework_an_instrumentation_and_a_placeholder_are_no_provider(written: str | None) -> None:
    assert names.called_provider(written) is None


@pytest.mark.parametrize(("table", "key"), [("providers", "alias"), ("frameworks", "name"), ("provider_apis", "name")])
def test_no_spelling_stands_twice(table: str, key: str) -> None:
    spellings = [names.spelling(row[key]) for row in names.table(table)]
    assert len(spellings) == len(set(spellings))

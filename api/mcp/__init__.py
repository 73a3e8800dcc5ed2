"""MCP: the questions that an agent or an assistant asks about cost, as read-only tools under /mcp.

server    the tools on the official SDK, stateless, for clients of both protocol eras
questions each tool: arguments → query → answer, as the caller may see it
answers   models of answers, and text from telemetry made harmless
"""

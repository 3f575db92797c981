"""The chat model that chains are built on: any server that speaks OpenAI's protocol, or the embedded one."""

"""Servers that people run or rent, as declarations.

What stands here is in their own documentation: where they live, the variable in which their users keep the key, and
what they do otherwise than OpenAI. Each looks for its key in a variable of its own, never in another one's.
"""

from __future__ import annotations

from .template import OpenaiTemplate


class AzureOpenai(OpenaiTemplate):
    """Azure OpenAI: deployments as models. ``api_base`` is the resource, "https://NAME.openai.azure.com"."""

    url = "https://learn.microsoft.com/azure/ai-services/openai/reference"
    api_base_env = "AZURE_OPENAI_ENDPOINT"
    api_key_env = "AZURE_OPENAI_API_KEY"
    needs_auth = True
    needs_base = True
    api_version = "2024-10-21"
    key_field = "api-key"
    chat_path = "/openai/deployments/{model}/chat/completions"
    images_path = "/openai/deployments/{model}/images/generations"
    models_path = "/openai/models"


class OpenRouter(OpenaiTemplate):
    """OpenRouter: many models behind one key. (``HTTP-Referer`` and ``X-Title`` name your app: `default_headers`.)"""

    url = "https://openrouter.ai"
    api_base = "https://openrouter.ai/api/v1"
    api_key_env = "OPENROUTER_API_KEY"
    needs_auth = True


class Groq(OpenaiTemplate):
    """Groq."""

    url = "https://console.groq.com"
    api_base = "https://api.groq.com/openai/v1"
    api_key_env = "GROQ_API_KEY"
    needs_auth = True


class DeepSeek(OpenaiTemplate):
    """DeepSeek."""

    url = "https://platform.deepseek.com"
    api_base = "https://api.deepseek.com"
    api_key_env = "DEEPSEEK_API_KEY"
    needs_auth = True
    default_model = "deepseek-chat"
    fallback_models = ["deepseek-chat", "deepseek-reasoner"]  # noqa: RUF012


class Mistral(OpenaiTemplate):
    """Mistral AI."""

    url = "https://console.mistral.ai"
    api_base = "https://api.mistral.ai/v1"
    api_key_env = "MISTRAL_API_KEY"
    needs_auth = True


class Together(OpenaiTemplate):
    """Together AI. (Its list of models is a bare one, and says which of them draw.)"""

    url = "https://api.together.ai"
    api_base = "https://api.together.xyz/v1"
    api_key_env = "TOGETHER_API_KEY"
    needs_auth = True


class Ollama(OpenaiTemplate):
    """Ollama on this machine."""

    url = "https://ollama.com"
    api_base = "http://localhost:11434/v1"
    api_key_env = "OLLAMA_API_KEY"


class VLLM(OpenaiTemplate):
    """vLLM on this machine."""

    url = "https://docs.vllm.ai"
    api_base = "http://localhost:8000/v1"
    api_key_env = "VLLM_API_KEY"


class LlamaCpp(OpenaiTemplate):
    """llama.cpp's ``llama-server`` on this machine. (It has one model, whatever is asked for.)"""

    url = "https://github.com/ggml-org/llama.cpp"
    api_base = "http://localhost:8080/v1"
    api_key_env = "LLAMA_API_KEY"


class LMStudio(OpenaiTemplate):
    """LM Studio on this machine."""

    url = "https://lmstudio.ai"
    api_base = "http://localhost:1234/v1"
    api_key_env = "LM_API_TOKEN"

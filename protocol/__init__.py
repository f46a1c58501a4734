"""The protocols of LLM chat APIs as pure state machines: no sockets, no clock, no randomness, no threads.

The machines are fed bytes (``receive``), told of the end (``end``, ``fail``) and give lists of events.
What a peer does wrong comes as the last event; what the caller does wrong raises at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .accumulate import Accumulator, accumulate
from .budget import RetryBudget
from .catalogue import Catalogue, catalogue
from .chunks import (
    Audio,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    CompletionTokensDetails,
    Delta,
    Function,
    Logprobs,
    Message,
    Model,
    ModelList,
    PromptTokensDetails,
    StatusChunk,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
    has_content,
)
from .context import Context
from .deadlines import Deadlines, Timeout
from .dialects.opchatgpts import is_stale_nonce
from .endpoint import DEFAULT_BASE_URL, Endpoint
from .errors import (
    APIError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    ConnectError,
    DeltawireError,
    EmptyReplyError,
    InternalServerError,
    LimitExceededError,
    MalformedEventError,
    MissingAuthError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    ProviderNotFoundError,
    ProviderNotWorkingError,
    ProxyError,
    RateLimitError,
    ReadError,
    RedirectError,
    ResponseError,
    ResponseStatusError,
    RetryNoProviderError,
    RetryProviderError,
    StreamError,
    TimeoutError,
    TransportError,
    TruncatedStreamError,
    UnexpectedReplyError,
    UnprocessableEntityError,
    UsageError,
)
from .events import Event, SessionStarted, StreamEnded, StreamFailed
from .images import Image, ImageRequest, ImagesResponse, ImagesUsage, ImageTokensDetails, markdown, read_images
from .limits import Limits
from .media import media_part, media_type
from .messages import as_messages, fold_system, last_user_text, render_history, with_media, with_prompt
from .pieces import FinishReason, ImageResponse, Piece, Pieces, Reasoning, ToolCalls, UsageReport
from .proxy import HTTPConnect, Proxy, TunnelEvent, TunnelFailed, TunnelOpened, tunnel
from .reply import Reply
from .request import ChatRequest, HTTPRequest
from .retry import GiveUp, Outcome, Prepare, RetryPolicy, Send, Sleep, attempts, fail_over, is_retryable
from .routing import absolute_form, bypasses, choose_proxy
from .site import Site, chat_id_of
from .socks5 import SOCKS_TRANSITIONS, Socks5, SocksState
from .sse import ServerSentEvent, SSEDecoder
from .states import TRANSITIONS, State
from .stopping import StopWords

if TYPE_CHECKING:
    from .http1 import HTTP1_TRANSITIONS, HTTP1Exchange, HTTP1State

__all__ = [
    "DEFAULT_BASE_URL",
    "HTTP1_TRANSITIONS",
    "SOCKS_TRANSITIONS",
    "TRANSITIONS",
    "APIError",
    "APIStatusError",
    "Accumulator",
    "Audio",
    "AuthenticationError",
    "BadRequestError",
    "Catalogue",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatRequest",
    "Choice",
    "ChunkChoice",
    "CompletionTokensDetails",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "Context",
    "Deadlines",
    "Delta",
    "DeltawireError",
    "EmptyReplyError",
    "Endpoint",
    "Event",
    "FinishReason",
    "Function",
    "GiveUp",
    "HTTP1Exchange",
    "HTTP1State",
    "HTTPConnect",
    "HTTPRequest",
    "Image",
    "ImageRequest",
    "ImageResponse",
    "ImageTokensDetails",
    "ImagesResponse",
    "ImagesUsage",
    "InternalServerError",
    "LimitExceededError",
    "Limits",
    "Logprobs",
    "MalformedEventError",
    "Message",
    "MissingAuthError",
    "Model",
    "ModelList",
    "ModelNotFoundError",
    "NotFoundError",
    "Outcome",
    "PermissionDeniedError",
    "Piece",
    "Pieces",
    "Prepare",
    "PromptTokensDetails",
    "ProviderNotFoundError",
    "ProviderNotWorkingError",
    "Proxy",
    "ProxyError",
    "RateLimitError",
    "ReadError",
    "Reasoning",
    "RedirectError",
    "Reply",
    "ResponseError",
    "ResponseStatusError",
    "RetryBudget",
    "RetryNoProviderError",
    "RetryPolicy",
    "RetryProviderError",
    "SSEDecoder",
    "Send",
    "ServerSentEvent",
    "SessionStarted",
    "Site",
    "Sleep",
    "Socks5",
    "SocksState",
    "State",
    "StatusChunk",
    "StopWords",
    "StreamEnded",
    "StreamError",
    "StreamFailed",
    "Timeout",
    "TimeoutError",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "ToolCalls",
    "TopLogprob",
    "TransportError",
    "TruncatedStreamError",
    "TunnelEvent",
    "TunnelFailed",
    "TunnelOpened",
    "UnexpectedReplyError",
    "UnprocessableEntityError",
    "Usage",
    "UsageError",
    "UsageReport",
    "absolute_form",
    "accumulate",
    "as_messages",
    "attempts",
    "bypasses",
    "catalogue",
    "chat_id_of",
    "choose_proxy",
    "fail_over",
    "fold_system",
    "has_content",
    "is_retryable",
    "is_stale_nonce",
    "last_user_text",
    "markdown",
    "media_part",
    "media_type",
    "read_images",
    "render_history",
    "tunnel",
    "with_media",
    "with_prompt",
]


def __getattr__(name: str) -> Any:
    # h11 takes as long to load as all the rest: only for those who speak HTTP by it.
    if name in ("HTTP1_TRANSITIONS", "HTTP1Exchange", "HTTP1State"):
        from . import http1

        return getattr(http1, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

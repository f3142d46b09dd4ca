"""The server for agents: the Model Context Protocol by its official SDK, on standard streams or on loopback.

Standard streams are for the program that started this one. On loopback whoever knows the token may call. Calls are done
one after the other in one thread, by whoever serves: the command line, or Slicer behind the worker's protocol.
"""

import asyncio
import base64
import hmac
import itertools
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from . import __version__
from .errors import Cancelled, FoundationSegError, InferenceError, OutputError, package_missing, write_failure
from .progress import Progress
from .requests.agent_calls import TOOLS, AgentAnswer, AgentCall, ServedCall, ServeRequest, parse_call
from .worker.protocol import ServedReply

Perform = Callable[[str, AgentCall], AgentAnswer]
PATH = "/mcp"
_INSTRUCTIONS = (
    "Segments and classifies medical images on the user's own computer. Start with list_images and list_models. "
    "Research use, not a diagnosis."
)
_READ_ONLY = ("list_images", "list_models", "show_model", "classify", "measure", "render")
_POLL_S = 0.2


def import_mcp() -> Any:
    """Import the official SDK of the Model Context Protocol.

    Raises:
        PackageMissingError: it is not installed.
    """
    try:
        import mcp.server.lowlevel
        import mcp_types
    except ImportError as error:
        raise package_missing("serving agents", "mcp") from error
    return mcp.server.lowlevel, mcp_types


def make_server(perform: Perform, executor: ThreadPoolExecutor) -> Any:
    """Make a server whose tools are those of :data:`.requests.agent_calls.TOOLS`.

    Args:
        perform: does a call, and waits for its answer; raises a FoundationSegError where it fails.
        executor: has the one thread that calls are done in.

    Raises:
        PackageMissingError: the SDK is not installed.
    """
    lowlevel, types = import_mcp()
    tools = [_tool(types, name, kind) for name, kind in TOOLS.items()]

    async def list_tools(_context: Any, _parameters: Any) -> Any:
        return types.ListToolsResult(tools=tools)

    async def call_tool(_context: Any, parameters: Any) -> Any:
        loop = asyncio.get_running_loop()
        try:
            call = parse_call(parameters.name, parameters.arguments)
            answer = await loop.run_in_executor(executor, perform, parameters.name, call)
        except FoundationSegError as error:
            return _failure(types, type(error).__name__, str(error))
        except OSError as error:
            return _failure(types, OutputError.__name__, f"a file cannot be used: {write_failure(error)}")
        return _result(types, answer)

    return lowlevel.Server(
        "foundationseg",
        version=__version__,
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _tool(types: Any, name: str, kind: type) -> Any:
    from pydantic import TypeAdapter

    schema = TypeAdapter(kind).json_schema()
    description, is_read_only = " ".join((kind.__doc__ or "").split()), name in _READ_ONLY
    schema |= {"additionalProperties": False}
    schema.pop("description", None)
    annotations = types.ToolAnnotations(read_only_hint=is_read_only, destructive_hint=False, open_world_hint=False)
    return types.Tool(name=name, description=description, input_schema=schema, annotations=annotations)


def _result(types: Any, answer: AgentAnswer) -> Any:
    document = dict(answer.document)
    content = [types.TextContent(type="text", text=json.dumps(document, ensure_ascii=False))]
    if answer.picture:
        picture = base64.b64encode(answer.picture).decode()
        content.append(types.ImageContent(type="image", data=picture, mime_type="image/png"))
    return types.CallToolResult(content=content, structured_content=document)


def _failure(types: Any, kind: str, message: str) -> Any:
    document = {"error": {"type": kind, "message": message}}
    text = types.TextContent(type="text", text=f"{kind}: {message}")
    return types.CallToolResult(content=[text], structured_content=document, is_error=True)


@contextmanager
def one_thread() -> Iterator[ThreadPoolExecutor]:
    """Yield an executor with one thread; what waits in it at the end is dropped."""
    executor = ThreadPoolExecutor(1, "calls")
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def serve_streams(server: Any) -> None:
    """Serve on standard input and output until the input ends."""
    import anyio
    from mcp.server.stdio import stdio_server

    async def run() -> None:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    anyio.run(run)


def serve_loopback(
    server: Any, port: int, token: str, on_open: Callable[[int], None], is_over: Callable[[], bool] = lambda: False
) -> None:
    """Serve over HTTP on 127.0.0.1 until ``is_over``, or until the program is interrupted.

    Args:
        server: the server.
        port: 0 for one that is free.
        token: what a caller has to show as ``Authorization: Bearer TOKEN``.
        on_open: called with the port once callers are let in.

    Raises:
        InferenceError: the port is taken.
    """
    import anyio
    import uvicorn

    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InferenceError(f"agents cannot be served on port {port}: {error.strerror}") from error
    with listener:
        port = listener.getsockname()[1]
        app = _guarded(server.streamable_http_app(streamable_http_path=PATH, host="127.0.0.1"), token)
        config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
        http = uvicorn.Server(config)

        async def watch() -> None:
            while not http.started:
                await asyncio.sleep(_POLL_S / 4)
            on_open(port)
            while not is_over():
                await asyncio.sleep(_POLL_S)
            http.should_exit = True

        async def run() -> None:
            watcher = asyncio.ensure_future(watch())
            try:
                await http.serve(sockets=[listener])
            finally:
                watcher.cancel()

        anyio.run(run)


def _guarded(app: Any, token: str) -> Callable[[Mapping[str, Any], Any, Any], Awaitable[None]]:
    """Let nobody in who does not show the token."""
    expected = f"Bearer {token}".encode()

    async def guard(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        shown = dict(scope.get("headers", ())).get(b"authorization", b"")
        if scope["type"] == "http" and not hmac.compare_digest(shown, expected):
            headers = [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return guard


def serve_for_client(
    request: ServeRequest, progress: Progress, next_reply: Callable[[float], ServedReply | None]
) -> None:
    """Serve agents in a process of its own; each call goes to the client as a part, and its reply comes back.

    Raises:
        PackageMissingError: the SDK is not installed in this Python.
        Cancelled: the client wants it to end.
        InferenceError: the port is taken.
    """
    numbers = itertools.count(1)

    def perform(tool: str, call: AgentCall) -> AgentAnswer:
        number = next(numbers)
        progress.partial(ServedCall(number, tool, call))
        while not progress.token.cancelled:
            reply = next_reply(_POLL_S)
            if reply is None or reply.call_id != number:
                continue
            if reply.answer is None:
                raise reply.failure.error() if reply.failure is not None else InferenceError("no answer came")
            return reply.answer
        raise Cancelled("agents are served no more")

    with one_thread() as executor:
        server = make_server(perform, executor)
        try:
            serve_loopback(
                server,
                request.port,
                request.token,
                lambda port: progress.partial(ServedCall(0, port=port)),
                lambda: progress.token.cancelled,
            )
        finally:
            progress.token.cancel()
    progress.check()

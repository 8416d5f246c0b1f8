"""A gRPC proxy in front of a Milvus server. It records requests, and answers some of them itself if told to.

With it, a test can confront the real client with faults, or with a server that claims to be a full Milvus.
"""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from pymilvus.grpc_gen import milvus_pb2

__all__ = ["Proxy", "milvus_proxy"]

_SERVICE = "/milvus.proto.milvus.MilvusService/"


class Proxy:
    """The proxy, with the requests that it has recorded and its instructions.

    Attributes:
        uri: The proxy's address.
        seen: {method's name: its requests, parsed}.
        faults: {method's name: status codes for its next calls}. None lets a call through.
        answers: {method's name: the answer to return instead of the server's, or a function that returns this answer}.
            Such a function is called with the request, and with a function that asks the server.
    """

    def __init__(self, server_uri: str) -> None:
        self.seen, self.faults, self.answers = defaultdict(list), defaultdict(list), {}
        self._channel = grpc.insecure_channel(server_uri.removeprefix("http://"))
        self._server = grpc.server(ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.uri = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """Stop the proxy. It then refuses all further connections."""
        self._server.stop(None).wait()
        self._channel.close()

    def pretend(self, version: str) -> None:
        """Report this server version, such as "v2.6.5"."""
        self.answers["GetVersion"] = milvus_pb2.GetVersionResponse(version=version)

    def handle(self, method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer one call."""
        name = method.removeprefix(_SERVICE)
        self.seen[name].append(_parsed(name, request))
        if self.faults[name] and (code := self.faults[name].pop(0)) is not None:
            context.abort(code, "injected")
        answer = self.answers.get(name)
        if answer is not None and not callable(answer):
            return answer.SerializeToString()

        def ask(asked: bytes) -> bytes:
            return self._channel.unary_unary(method)(asked, metadata=context.invocation_metadata(), timeout=60)

        try:
            if answer is not None:
                return answer(_parsed(name, request), ask).SerializeToString()
            return ask(request)
        except grpc.RpcError as err:
            context.abort(err.code(), err.details())


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self.proxy.handle(details.method, request, context)
        )


def _parsed(name: str, request: bytes) -> object:
    described = milvus_pb2.DESCRIPTOR.services_by_name["MilvusService"].methods_by_name.get(name)
    kind = getattr(milvus_pb2, described.input_type.name, None) if described else None
    return request if kind is None else kind.FromString(request)


@contextmanager
def milvus_proxy(server_uri: str) -> Iterator[Proxy]:
    """Yield a proxy in front of a server, and stop it afterwards."""
    proxy = Proxy(server_uri)
    try:
        yield proxy
    finally:
        proxy.stop()

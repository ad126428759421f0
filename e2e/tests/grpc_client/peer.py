"""What a proxyless gRPC application is to a control plane: a server, and a client that finds it by `xds:///`.

    peer.py serve NAME          answers every call with NAME, on a port of its own
    peer.py call TARGET         calls TARGET again and again, and tells each answer that differs from the one before

Both tell what happens on standard output, one JSON object per line. Messages are bare bytes, so no stubs are needed.
"""

import json
import sys
import time
from concurrent import futures

import grpc

METHOD = "/chancery.test.Peer/Who"

# Longer than resolving may take on a busy machine; a call that waits that long counts as failed.
DEADLINE_SECONDS = 20

PAUSE_SECONDS = 0.001


def tell(**what):
    print(json.dumps(what), flush=True)


def serve(name):
    answer = grpc.unary_unary_rpc_method_handler(lambda _request, _context: name.encode())
    service, method = METHOD.strip("/").split("/")
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: answer})])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    tell(event="ready", grpc=f"127.0.0.1:{port}")
    server.wait_for_termination()


def call(target):
    last = None
    with grpc.insecure_channel(target) as channel:
        who = channel.unary_unary(METHOD)
        while True:
            try:
                answer = {"answer": who(b"", timeout=DEADLINE_SECONDS, wait_for_ready=last is None).decode()}
            except grpc.RpcError as error:
                answer = {"error": f"{error.code().name}: {error.details()}"}
            if answer != last:
                tell(**answer)
                last = answer
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](sys.argv[2])

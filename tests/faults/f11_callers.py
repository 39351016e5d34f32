import contextlib
import socket
import struct

from caller import request_bytes
from process import expect, open_files
from world import eventually

TITLE = "callers that leave, reset or half-close at every point"
SETTLED_S = 5
# Parts of the request after which a caller leaves.
PARTS = [0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.999]


def leave(sock):
    sock.close()


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half_close(sock):
    sock.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass
    sock.close()


ENDS = [leave, reset, half_close]
# What of the answer is read before: nothing, its head, its first event, a part.
READS = [None, b"\r\n\r\n", b"word 0", b"word 5"]


def run(world):
    house = world.house()
    house.start()
    with contextlib.closing(house.caller()) as caller:
        caller.ask()
    files = open_files(house.pid)
    for _ in range(world.pick(2, 50)):
        for end in ENDS:
            for part in PARTS:
                within_request(world, house, end, part)
            for scene in ("slow", "plain", "silent" if end is not half_close else "slow"):
                for until in READS if scene == "slow" else READS[:1]:
                    within_answer(world, house, end, scene, until)
    eventually("files to be closed", lambda: open_files(house.pid) <= files + 2)
    house.audit([])
    unfinished = [row for row in house.rows().values() if row["cost_nano_usd"] == 0 and row["outcome"] == "client_gone"]
    expect(not unfinished, f"{len(unfinished)} callers left without being charged: {dict(unfinished[0]) if unfinished else ''}")
    house.stop()
    return world.rounds, f"{len(PARTS)} points of the request and {len(READS) + 2} of the answer, three ways to go"


def within_request(world, house, end, part):
    whole, number = request_bytes(house)
    sock = connect_tcp(house)
    sock.sendall(whole[: max(1, int(len(whole) * part))])
    end(sock)
    settled(world, house)
    expect(not world.provider.has_received(house.name, number), "half a request was sent on")
    world.rounds += 1


def within_answer(world, house, end, scene, until):
    whole, number = request_bytes(house, scene, stream=True)
    sock = connect_tcp(house)
    sock.sendall(whole)
    eventually("the request at the provider", lambda: world.provider.has_received(house.name, number))
    seen = b""
    while until and until not in seen:
        data = sock.recv(65536)
        expect(data, "the answer ended by itself")
        seen += data
    end(sock)
    settled(world, house)
    world.rounds += 1


def settled(world, house):
    eventually("the request to be settled", lambda: in_flight(house) == 0, SETTLED_S)
    eventually("the provider to be left", lambda: world.provider.under_way(house.name) == 0, SETTLED_S)


def in_flight(house):
    return house.json("status")["in_flight"]


def connect_tcp(house):
    host, port = house.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=20)

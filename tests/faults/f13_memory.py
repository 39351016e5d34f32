import contextlib
import select
import time

from caller import Stream, connect, expect_whole, read_answer, request_bytes
from process import KEEPS_NOTHING, expect, forget_peak, peak_bytes, resident_bytes
from world import eventually

TITLE = "more bodies than there is memory for"
MIB = 1 << 20
MEMORY_BYTES = 256 * MIB
BODY_BYTES = MIB
# With each body counts what the engine has of it: the buffer that it is read through, and the one that it would be replayed
# from.
BUFFERS_BYTES = 2 * 64 * 1024
# What does not count: some 34 KiB for each of 700 connections, and what a few requests need while they are looked at. Who is
# refused has the buffer that his body is read through until he has sent the rest of it, for five seconds at most.
BESIDES_BYTES = 32 * MIB
REFUSED_BYTES = 64 * 1024
# What the allocator has free and has not given back yet, as it does within about ten seconds.
KEPT_BYTES = MEMORY_BYTES // 2
STREAMS = 200
# Of bodies that grow side by side each is refused that finds no room for its next step, though others are refused just then.
HELD_SHARE_MIN = 0.5
SLICE_BYTES = 64 * 1024


def run(world):
    notes = []
    for allocator, most in ((KEEPS_NOTHING, BESIDES_BYTES), ({}, BESIDES_BYTES + KEPT_BYTES)):
        # How long a busy machine takes to send all this is not what shall refuse it.
        limits = f'[limits]\nmemory = "{MEMORY_BYTES // MIB} MiB"\nbody_timeout = "10m"'
        house = world.house(tables=limits, metrics="127.0.0.1:0")
        house.add_environment(**allocator)
        house.start()
        held, refused, peak = attempt(world, house, MEMORY_BYTES + most)
        kept = "nothing is kept free" if allocator else "what is free is kept for a while"
        notes.append(f"{held} held, {refused} refused, {peak / MIB:.0f} MiB above idle where {kept}")
        house.stop()
    return world.rounds, "; ".join(notes)


def attempt(world, house, most):
    """Presses several times while streams run; answers how many bodies were held and refused, and the most memory."""
    world.provider.ending.clear()
    with contextlib.closing(house.caller()) as caller:
        # Pages of the program, once they are read, are no pressure.
        answers = [caller.ask(scene="stream", stream=True) for _ in range(20)]
    idle = resident_bytes(house.pid)
    forget_peak(house.pid)
    streams = [Stream(house, "paced") for _ in range(STREAMS)]
    held, refused, most_refused = 0, 0, 0
    try:
        eventually("the streams", lambda: world.provider.under_way(house.name) == STREAMS, 60)
        # All bodies side by side, and one after the other.
        for slice_bytes in world.pick([SLICE_BYTES], [SLICE_BYTES, BODY_BYTES] * 2):
            had_room, more = press(house, world.pick(300, 500), slice_bytes, answers)
            held, refused, most_refused = held + had_room, refused + more, max(most_refused, more)
            world.rounds += 1
        peak = peak_bytes(house.pid) - idle
    finally:
        world.provider.ending.set()
    for stream in streams:
        stream.join(60)
        expect_whole(stream)
    most += most_refused * REFUSED_BYTES
    expect(peak <= most, f"{peak / MIB:.0f} MiB more than idle, {most / MIB:.0f} MiB may be")
    house.audit(answers)
    return held, refused, peak


def press(house, callers, slice_bytes, answers):
    """Sends bodies but for their last byte, `slice_bytes` of each at a time, and answers how many had room, and not."""
    with contextlib.ExitStack() as stack:
        uploads = [Upload(house, stack.enter_context(connect(house, 120))) for _ in range(callers)]
        for end in range(slice_bytes, len(uploads[0].data) + slice_bytes, slice_bytes):
            for upload in uploads:
                upload.send_to(end)
        held = []

        def has_settled():
            held[:] = [upload for upload in uploads if not upload.is_answered()]
            return house.figure("tokfence_buffered_bytes") == sum(upload.counted_bytes for upload in held)

        eventually("every body to be held or refused", has_settled, 60)
        refusals = [upload.answer() for upload in uploads if upload not in held]
        codes = {(refusal.status, refusal.code) for refusal in refusals}
        expect(codes == {(503, "overloaded")}, f"refused with {codes}")
        fit = MEMORY_BYTES // uploads[0].counted_bytes
        least = fit * HELD_SHARE_MIN if slice_bytes < BODY_BYTES else fit
        expect(least <= len(held) <= fit, f"{len(held)} bodies are held, and {fit} have room")
        # Half of those who wait leave, the others are served.
        for upload in held[::2]:
            upload.sock.close()
        for upload in held[1::2]:
            upload.send_rest()
        served = [upload.answer() for upload in held[1::2]]
    expect({answer.status for answer in served} == {200}, f"{[answer.code for answer in served]}")
    answers += served
    eventually("all to be given back", lambda: house.figure("tokfence_buffered_bytes") == 0)
    with contextlib.closing(house.caller()) as caller:
        answers.append(caller.ask())
        expect(answers[-1].status == 200, f"afterwards: {answers[-1]}")
    return len(held), len(refusals)


class Upload:
    """A request that is sent as far as one likes."""

    def __init__(self, house, sock):
        self.sock, self._started, self._sent = sock, time.monotonic(), 0
        self.data, self._number = request_bytes(house, body_bytes=BODY_BYTES)
        self.counted_bytes = len(self.data.partition(b"\r\n\r\n")[2]) + BUFFERS_BYTES

    def send_to(self, end):
        """Sends up to `end`, without the last byte."""
        self._send(self.data[self._sent : min(end, len(self.data) - 1)])

    def send_rest(self):
        self._send(self.data[self._sent :])

    def is_answered(self):
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))

    def answer(self):
        return read_answer(self.sock, self._number, self._started)

    def _send(self, data):
        # Who is refused while he sends may find nobody who listens, and the refusal is there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)
        self._sent += len(data)

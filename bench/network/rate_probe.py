#!/usr/bin/env python3
"""One end of `slow_network --check`: rate_probe.py OWN_ADDRESS NEXT_ADDRESS SECONDS

Sends to the next address and receives from whoever connects, both at once, and prints one JSON line.
"""
import json
import socket
import sys
import threading
import time

PORT = 7077
CHUNK = bytes(1 << 20)
WARM_UP_S = 0.5  # the bucket's burst and TCP's slow start
ROUND_TRIPS = 200


def connect(address):
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection((address, PORT), timeout=10)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)  # the other end is starting


def send(connection, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(CHUNK)
    connection.shutdown(socket.SHUT_WR)


def echo(connection):
    for _ in range(ROUND_TRIPS):
        connection.sendall(connection.recv(1))


def round_trip_us(connection):
    times = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        connection.sendall(b"x")
        connection.recv(1)
        times.append(1e6 * (time.perf_counter() - begin))
    return sorted(times)[len(times) // 2]


def main():
    own, following, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    server = socket.create_server((own, PORT))
    server.settimeout(10)
    accepted = []
    accepting = threading.Thread(target=lambda: accepted.append(server.accept()[0]))
    accepting.start()
    outgoing = connect(following)
    accepting.join()
    incoming = accepted[0]
    for connection in (incoming, outgoing):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    echoing = threading.Thread(target=echo, args=(incoming,))
    echoing.start()
    trip = round_trip_us(outgoing)
    echoing.join()

    sending = threading.Thread(target=send, args=(outgoing, WARM_UP_S + seconds))
    sending.start()
    buffer, received, begin, first = bytearray(1 << 20), 0, time.monotonic(), None
    while True:
        count = incoming.recv_into(buffer)
        if count == 0:
            break
        last = time.monotonic()
        if last > begin + WARM_UP_S:
            received += count
            first = first or last
    sending.join()
    print(json.dumps({"received_mb_per_s": round(received / 1e6 / max(last - first, 1e-9), 2), "round_trip_us": round(trip, 1)}))


if __name__ == "__main__":
    main()

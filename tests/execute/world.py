"""A cluster that does not exist, on a clock that nobody waits for."""

import heapq
import random

from evometa.execute.failures import Failure
from evometa.execute.fleet import Arrived, Finished, Gone
from evometa.execute.usage import Usage
from evometa.records import Evaluation, Status

DEADLY = {"segfault": Failure.CRASH, "eat": Failure.MEMORY}


class World:
    """A `Fleet`. A genome is a number of seconds, "segfault", "eat", "sleep" or "cancel"."""

    def __init__(self, nodes, seed=0):
        self.now, self.random = 0.0, random.Random(seed)
        self.free = dict(nodes)  # node -> slots that no worker has
        self.leaving = set()
        self.place, self.waiting = {}, []  # worker -> node; those asked for
        self.flights = {}  # worker -> [(flight, pack)]; the first runs
        self.recalled, self.heap, self.count = set(), [], 0
        self.begun, self.soft = [], []
        self.peak_beside_eater = 0

    def clock(self):
        return self.now

    def later(self, seconds, action):
        self.count += 1
        heapq.heappush(self.heap, (self.now + seconds, self.count, action))

    # what a supervisor calls

    def start(self, worker):
        self.waiting.append(worker)
        self.settle()

    def run(self, worker, flight, pack, seconds):
        self.soft.append(seconds)
        flights = self.flights[worker]
        flights.append((flight, pack))
        if len(flights) == 1:
            self.begin(worker)

    def recall(self, flight):
        self.recalled.add(flight)

    def kill(self, worker):
        if worker in self.waiting:
            self.waiting.remove(worker)
        node = self.place.pop(worker, None)
        self.flights.pop(worker, None)
        if node in self.free:
            self.free[node] += 1
        self.settle()

    def wait(self, timeout):
        until, events = self.now + timeout, []
        while self.heap and self.heap[0][0] <= until and not events:
            self.now, _, action = heapq.heappop(self.heap)
            events = action() or []
        if not events:
            self.now = until
        return events

    def draining(self):
        return frozenset(self.leaving)

    def patience(self):
        return 120.0

    def wants(self):
        return "each worker needs a slot"

    # what happens

    def settle(self):
        for node in self.free:
            while self.free[node] and self.waiting and node not in self.leaving:
                worker = self.waiting.pop(0)
                self.free[node] -= 1
                self.place[worker] = node
                self.flights[worker] = []
                self.later(1.0, lambda w=worker, n=node: w in self.place and [self.arrived(w, n)])

    def arrived(self, worker, node):
        """Every worker is on a core for a quarter of the time, and waits for one for a half."""
        return Arrived(worker, node, lambda: Usage(0.25 * self.now, 0.5 * self.now))

    def begin(self, worker):
        if not self.flights.get(worker):
            return
        flight, pack = self.flights[worker][0]
        if flight in self.recalled:
            self.later(0.0, lambda: self.end(worker, flight, []))
            return
        self.begun.append((self.now, self.place[worker], pack))
        genomes = [candidate.genome for candidate in pack]
        if "eat" in genomes:
            beside = [w for w, f in self.flights.items() if f and w != worker]
            near = [w for w in beside if self.place[w] == self.place[worker]]
            self.peak_beside_eater = len(near)
            victims = [worker, *self.random.sample(near, min(1, len(near)))]
            self.later(0.1, lambda: [e for w in victims for e in self.die(w, Failure.MEMORY)])
        elif "segfault" in genomes:
            self.later(0.1, lambda: self.die(worker, Failure.CRASH))
        elif "cancel" in genomes:
            self.later(0.1, lambda: self.end(worker, flight, []))
        elif "sleep" not in genomes:
            done = [Evaluation(candidate, Status.OK) for candidate in pack]
            self.later(sum(genomes), lambda: self.end(worker, flight, done))

    def end(self, worker, flight, evaluations):
        if not self.flights.get(worker) or self.flights[worker][0][0] != flight:
            return []
        self.flights[worker].pop(0)
        self.begin(worker)
        return [Finished(worker, flight, evaluations)]

    def die(self, worker, failure):
        return [Gone(worker, failure, "it died")] if worker in self.place else []

    def lose(self, node):
        """A machine vanishes, with its workers."""
        self.free.pop(node, None)
        lost = [worker for worker, place in self.place.items() if place == node]
        return [event for worker in lost for event in self.die(worker, Failure.NODE)]

"""The first half of a run: find its inputs, see what earlier runs have done of them, plan the rest, admit the reels.

Whatever will not be done has its result in the books afterwards, and the plan is written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.apart import Apart
from jobs.books import Books
from jobs.failures import Failure
from jobs.hardware import check_hwaccel
from jobs.inputs import Found, Item, find_inputs
from jobs.ledger import Job
from jobs.plan import Planner, plan_all, settle_names, short_hash
from jobs.reels import Reel
from jobs.request import Request, sources_of
from jobs.results import Result, finished
from jobs.survey import Before, State, look_back
from pipeline.version import VERSION


def prepare(request: Request, job: Job, weights: str, books: Books, apart: Apart) -> list[State]:
    """The reels to be done in this run, in the order of the inputs, with what is there of them already.

    weights: hex SHA-256. Raises EngineError where `--hwaccel cuda` does not work here, StorageError where the job
    folder cannot be written.
    """
    return _Preparation(request, job, weights, books).run(apart)


class _Preparation:
    """One call of `prepare`, with what its steps have in common."""

    def __init__(self, request: Request, job: Job, weights: str, books: Books) -> None:
        self._request, self._job, self._weights, self._books = request, job, weights, books
        self._planner = Planner(request.recipe, weights, job.outdir, job.folder)

    def run(self, apart: Apart) -> list[State]:
        found = find_inputs(self._request.inputs, self._job.outdir, self._request.recipe.fps is not None)
        for item in found.items:
            self._books.expect(self._planner.reel_id(item), item.path)
        for path, reason in found.skipped:
            self._books.note(f"{path}: {reason}; left out")
        check_hwaccel(self._request.recipe, apart, self._books.note)
        before = self._look_back(found)
        reels = self._plan(found, before, apart)
        entries = [b.done.plan for b in before.values() if b.done] + [reel.entry() for reel in reels]
        order = {reel_id: place for place, reel_id in enumerate(self._books.inputs)}
        self._job.write_plan(self._document(sorted(entries, key=lambda entry: order[entry["id"]])))
        states = [self._admit(reel, before[reel.id]) for reel in reels]
        for path, reason in found.refused:
            reel_id = short_hash(path)
            self._books.expect(reel_id, path)
            result = Result(path, None, "failed", error=f"{path}: {reason}")
            self._books.finish(reel_id, result, Failure("input", reason))
        return [state for state in states if state is not None]

    def _look_back(self, found: Found) -> dict[str, Before]:
        """What earlier runs say, by reel; items that are done get their result here."""
        before: dict[str, Before] = {}
        for item in found.items:
            reel_id = self._planner.reel_id(item)
            before[reel_id] = look_back(self._job, self._planner, item, self._books.note)
            if done := before[reel_id].done:
                self._books.finish(reel_id, finished(done, self._job.outdir))
        return before

    def _left_out(self, item: Item) -> bool:
        """Whether the reel is not to be done in this run, because it has failed before, or because it has not."""
        reel_id = self._planner.reel_id(item)
        if self._request.only == "all":
            return False
        failed = self._job.reel(reel_id).read_failed()
        if (failed is not None) == (self._request.only == "failed"):
            return False
        error = str(failed["error"]) if failed else f"{item.path}: not done yet, nor failed; resume does it"
        self._books.result(reel_id, Result(item.path, None, "failed", error=error))
        return True

    def _plan(self, found: Found, before: Mapping[str, Before], apart: Apart) -> list[Reel]:
        """Plan what is not done; what cannot be done gets its result here."""
        todo = [item for item in found.items if before[self._planner.reel_id(item)].done is None]
        todo = [item for item in todo if not self._left_out(item)]
        planned, unplanned = plan_all(self._planner, todo, apart, self._books.console.planning)
        earlier = [b.done for b in before.values() if b.done and planned]
        taken = {self._job.outdir / done.output / name: done.input for done in earlier for name in done.files}
        reels, misnamed = settle_names(planned, taken, sources_of(found.items))
        for refusal in (*unplanned, *misnamed):
            result = Result(refusal.input, refusal.output, "failed", error=refusal.error)
            self._books.finish(refusal.reel_id, result, refusal.failure or Failure("input", refusal.error))
        return reels

    def _document(self, entries: list[Any]) -> dict[str, Any]:
        """plan.json: a function of input, recipe and weights."""
        recipe = self._request.recipe.as_dict()
        return {"version": VERSION, "recipe": recipe, "weights": self._weights, "reels": entries}

    def _admit(self, reel: Reel, before: Before) -> State | None:
        """Take the reel in, unless another run makes its output, or something else is in that place."""
        ledger = self._job.reel(reel.id)
        if not self._job.claim(reel.first_file):
            error = f"{reel.input}: another run is making {reel.output}; wait for it, then run the same command again"
            self._books.finish(reel.id, Result(reel.input, str(reel.output), "failed", error=error))
            return None
        replace = self._request.overwrite or before.replaceable or ledger.announced() == reel.name
        there = reel.existing()
        if there is not None and not replace:
            error = f"{reel.input}: its output {there} exists; --overwrite replaces it"
            self._books.finish(reel.id, Result(reel.input, str(reel.output), "failed", error=error))
            return None
        state = State(reel, ledger, replace)
        self._job.sweep(ledger, reel.name, reel.targets())
        if self._request.recipe.hwaccel == "auto" and reel.settled:
            ledger.begin(reel.settled)
        state.take_stock(self._books.note)
        return state

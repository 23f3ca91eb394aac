"""Running coroutines from synchronous code, also in a notebook, where a loop runs already."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_to_end(make: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a coroutine and return its result, whether or not this thread has a running loop.

    If it has one (in a notebook or an asynchronous server), the coroutine runs in its own thread
    and loop, and this thread waits. An interrupt cancels the coroutine and is raised here.

    Args:
        make: function that returns the coroutine.

    Example:
        >>> run_to_end(lambda: asyncio.sleep(0, "done"))
        'done'
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(make())
    finished: Future[Result] = Future()
    inside: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def begin() -> Result:
        task = asyncio.current_task()
        assert task is not None
        inside.append((asyncio.get_running_loop(), task))
        return await make()

    def work() -> None:
        try:
            finished.set_result(asyncio.run(begin()))
        except BaseException as error:  # an interrupt or exit is raised in the waiting thread
            finished.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    try:
        return finished.result()
    finally:
        if thread.is_alive():
            for loop, task in inside:
                if not loop.is_closed():
                    loop.call_soon_threadsafe(task.cancel)
            thread.join()

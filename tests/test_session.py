"""The owner's side of one process, without I/O: frames in, states out."""

from __future__ import annotations

import pytest

import anyfork
from _anyfork_child.wire.failure import pack_texts
from _anyfork_child.wire.frames import (
    ADOPTED,
    BORN,
    BORN_AS_PROGRAM,
    DEATH,
    DIED,
    ENTERED,
    EXECUTING,
    FAILED,
    FORK,
    IMPORTED,
    LOST,
    PING,
    READY,
    Frame,
    ProtocolError,
)
from anyfork._processes.session import CLOSED, PREPARING, RUNNING, STARTING, Report, Session
from anyfork._status import UNKNOWN


def failed(category, subject="what", number=0, summary="why", trace="Traceback"):
    return Frame(FAILED, 0, pack_texts((category, subject, str(number), summary, trace)))


def died(wait_status, words=b"", user=0.0, system=0.0, max_rss=0):
    counts = [max_rss, 0, 0, 0, 11, 12, 0, 13, 14, 0, 0, 0, 15, 16]
    return Frame(DIED, 1, DEATH.pack(wait_status, user, system, *counts) + words)


def asked(pings=1, phase=PREPARING, **state):
    """Return a session that was asked so often, in a phase."""
    session = Session()
    session.pings, session.phase = pings, phase
    for name, value in state.items():
        setattr(session, name, value)
    return session


def outcome(session):
    return session.settled, session.succeeded, session.expects_control


# --- The control socket ---------------------------------------------------------------------------------------------

OPEN, YES, NO = (False, False, True), (True, True, False), (True, False, False)  # settled, succeeded, expects more

ANSWERS = {
    "nobody asked": (asked(0), [], YES),
    "no answer yet": (asked(), [], OPEN),
    "ready": (asked(), [Frame(READY, 7)], YES),
    "asked twice, answered once": (asked(2), [Frame(READY, 7)], OPEN),
    "asked twice, answered twice": (asked(2), [Frame(READY, 7), Frame(READY, 7)], YES),
    "failed": (asked(), [failed("preload")], NO),
    "ready, and then failed": (asked(2), [Frame(READY, 7), failed("execute")], NO),
    "a fork was lost": (asked(), [Frame(LOST, 3, failed("fork").body)], OPEN),
    "a fork was lost, and ready": (asked(), [Frame(LOST, 3, failed("fork").body), Frame(READY, 7)], YES),
    "starting": (asked(0, STARTING), [], OPEN),
    "entered": (asked(0, STARTING), [Frame(ENTERED, 7)], YES),
    "imported, not entered yet": (asked(0, STARTING), [Frame(IMPORTED, 10**6, b"module")], OPEN),
    "asked, and then entered": (asked(1, STARTING), [Frame(READY, 7), Frame(ENTERED, 7)], YES),
    "ready is not entered": (asked(1, STARTING), [Frame(READY, 7)], OPEN),
    "refused": (asked(0, STARTING), [failed("argument")], NO),
    "executing": (asked(0, STARTING), [Frame(EXECUTING, 7)], OPEN),
    "adopted": (asked(adopting=True), [Frame(ADOPTED, 7)], YES),
    "ready, for the former owner": (asked(adopting=True), [Frame(READY, 7)], OPEN),
    "failed, for the former owner": (asked(adopting=True), [failed("preload")], OPEN),
    "ready for the former owner, adopted": (asked(adopting=True), [Frame(READY, 7), Frame(ADOPTED, 7)], YES),
    "adopted, and asked": (asked(2, adopting=True), [Frame(ADOPTED, 7)], OPEN),
    "adopted, asked and failed": (asked(2, adopting=True), [Frame(ADOPTED, 7), failed("preload")], NO),
}


def take_control(session, frame):
    """Give the session what came on the control socket."""
    vars(session).update(session.said_on_control(frame))


def take_status(session, frame):
    """Give the session what came on the status socket."""
    vars(session).update(session.said_on_status(frame))


@pytest.mark.parametrize("case", ANSWERS)
def test_what_comes_on_the_control_socket_answers_the_question(case):
    template, frames, expected = ANSWERS[case]
    session = Session()
    session.__dict__.update(template.__dict__)
    for frame in frames:
        take_control(session, frame)
    assert outcome(session) == expected


WRONG_ANSWERS = {
    "ready, unasked": (asked(0), Frame(READY, 7)),
    "ready, too often": (asked(1, answers=1), Frame(READY, 7)),
    "adopted, unasked": (asked(0), Frame(ADOPTED, 7)),
    "imported, never started": (asked(1), Frame(IMPORTED, 10**6, b"module")),
    "entered, never started": (asked(1), Frame(ENTERED, 7)),
    "entered twice": (asked(0, RUNNING), Frame(ENTERED, 7)),
    "a question": (asked(), Frame(PING)),
    "a command": (asked(), Frame(FORK)),
    "a birth": (asked(), Frame(BORN, 7)),
    "a death": (asked(), died(0)),
    "a failure without texts": (asked(), Frame(FAILED, 0, b"")),
    "a failure with too few texts": (asked(), Frame(FAILED, 0, pack_texts(("preload", "x")))),
    "a failure with too many texts": (asked(), Frame(FAILED, 0, pack_texts(("preload", "x", "0", "y", "z", "more")))),
    "a failure that is no texts": (asked(), Frame(FAILED, 0, b"\xff" * 9)),
    "a failure whose errno is none": (asked(), failed("preload", number="many")),
    "a lost fork without texts": (asked(), Frame(LOST, 0, b"\1")),
}


@pytest.mark.parametrize(("session", "frame"), WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_what_does_not_belong_on_the_control_socket_is_an_error(session, frame):
    with pytest.raises(ProtocolError):
        take_control(session, frame)


@pytest.mark.parametrize("kind", [READY, ADOPTED])
def test_an_answer_tells_the_pid(kind):
    session = asked()
    take_control(session, Frame(kind, 4711))
    assert session.pid == 4711


@pytest.mark.parametrize("kind", [ENTERED, EXECUTING])
def test_a_start_tells_the_pid(kind):
    session = asked(0, STARTING)
    take_control(session, Frame(kind, 4711))
    assert session.pid == 4711


def test_entering_the_function_ends_the_talk_on_the_control_socket():
    session = asked(0, STARTING)
    take_control(session, Frame(ENTERED, 7))
    assert (session.phase, session.expects_control) == (RUNNING, False)


def test_lost_forks_are_known_by_their_numbers():
    session = asked()
    take_control(session, Frame(LOST, 3, failed("fork", summary="three").body))
    take_control(session, Frame(LOST, 5, failed("fork", summary="five").body))
    assert {number: report.summary for number, report in session.lost.items()} == {3: "three", 5: "five"}


def test_lost_forks_of_one_template_are_not_those_of_another():
    take_control(asked(), Frame(LOST, 3, failed("fork").body))
    assert dict(asked().lost) == {}


# --- Execution of programs ------------------------------------------------------------------------------------------


def test_a_pipe_that_ends_without_a_word_is_a_program_that_runs():
    session = asked(0, STARTING)
    session.take_executed(b"")
    assert (session.phase, outcome(session)) == (RUNNING, YES)


def test_a_word_on_that_pipe_is_the_reason_why_it_does_not():
    session = asked(0, STARTING)
    session.take_executed(failed("program", "ls", 2).body)
    assert outcome(session) == NO
    assert isinstance(session.why("", ""), anyfork.ProgramError)


# --- The status socket ----------------------------------------------------------------------------------------------


def test_the_birth_of_a_program_is_its_answer_too():
    session = asked(0, STARTING)
    take_status(session, Frame(BORN_AS_PROGRAM, 4711, b"", [9]))
    assert (session.pid, session.pidfd, session.born, session.phase, outcome(session)) == (
        4711,
        9,
        True,
        RUNNING,
        YES,
    )


def test_a_handle_that_was_closed_stays_closed_at_the_birth_of_its_program():
    session = asked(0, CLOSED)
    take_status(session, Frame(BORN_AS_PROGRAM, 4711))
    assert (session.born, session.phase) == (True, CLOSED)


def test_a_birth_tells_pid_and_pidfd():
    session = Session()
    take_status(session, Frame(BORN, 4711, b"", [9]))
    assert (session.born, session.pid, session.pidfd) == (True, 4711, 9)


def test_a_birth_without_a_pidfd_has_none():
    session = Session()
    take_status(session, Frame(BORN, 4711))
    assert (session.born, session.pid, session.pidfd) == (True, 4711, -1)


@pytest.mark.parametrize(
    ("frame", "code", "number", "error"),
    [
        (died(0), 0, None, None),
        (died(3 << 8), 3, None, None),
        (died(9), None, 9, None),
        (died(11 | 0x80), None, 11, None),
        (died(1 << 8, b"Traceback\n"), 1, None, "Traceback\n"),
        (died(1 << 8, "größer".encode()), 1, None, "größer"),
        (died(1 << 8, b"\xff"), 1, None, "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_death_tells_the_status(frame, code, number, error):
    session = Session()
    take_status(session, frame)
    assert session.status is not None
    assert (session.status.code, session.status.signal, session.status.error) == (code, number, error)


def test_a_death_tells_the_usage():
    session = Session()
    take_status(session, died(0, user=1.5, system=0.25, max_rss=2048))
    assert session.status is not None
    assert session.status.usage == anyfork.Usage(1.5, 0.25, 2048, 11, 12, 13, 14, 15, 16)


WRONG_NEWS = {
    "born twice": (asked(0, born=True), Frame(BORN, 7)),
    "born twice as a program": (asked(0, born=True), Frame(BORN_AS_PROGRAM, 7)),
    "died twice": (asked(0, status=UNKNOWN), died(0)),
    "a death that is cut off": (asked(0), Frame(DIED, 1, b"\0" * (DEATH.size - 1))),
    "ready": (asked(1), Frame(READY, 7)),
    "entered": (asked(0, STARTING), Frame(ENTERED, 7)),
    "failed": (asked(1), failed("preload")),
}


@pytest.mark.parametrize(("session", "frame"), WRONG_NEWS.values(), ids=WRONG_NEWS)
def test_what_does_not_belong_on_the_status_socket_is_an_error(session, frame):
    with pytest.raises(ProtocolError):
        take_status(session, frame)


# --- Ends -----------------------------------------------------------------------------------------------------------

ENDS = {
    "the control socket ended, the status may still come": (asked(control_ended=True), (False, False, False)),
    "both ended": (asked(control_ended=True, status_ended=True), NO),
    "the control socket ended and the status is known": (asked(control_ended=True, status=UNKNOWN), NO),
    "ended after the answer": (asked(1, answers=1, control_ended=True, status=UNKNOWN), NO),
    "ended while starting": (asked(0, STARTING, control_ended=True, status=UNKNOWN), NO),
    "what came was no frame": (asked(protocol_error=ProtocolError("noise")), (True, False, True)),
    "ended while running": (asked(0, RUNNING, control_ended=True, status=UNKNOWN), YES),
}


@pytest.mark.parametrize(("session", "expected"), ENDS.values(), ids=ENDS)
def test_the_end_of_a_socket_is_an_answer_once_nothing_more_can_come(session, expected):
    assert outcome(session) == expected


WHYS = {
    "no protocol": (
        asked(protocol_error=ProtocolError("noise")),
        anyfork.PeerError,
        "the process sent data that is not anyfork's protocol: noise",
    ),
    "never forked": (
        asked(control_ended=True, status_ended=True),
        anyfork.TemplateDiedError,
        "the process was never forked: its template is gone; nothing of it has run",
    ),
    "a template that died": (
        asked(born=True, pid=7, control_ended=True, status=anyfork.ExitStatus(signal=9)),
        anyfork.TemplateDiedError,
        "template 7 ended by signal 9 (SIGKILL)",
    ),
    "a process that died": (
        asked(0, STARTING, born=True, pid=7, control_ended=True, status=anyfork.ExitStatus(3)),
        anyfork.DiedBeforeReadyError,
        "process 7 ended with exit code 3 before it entered its function",
    ),
    "a process that died in an unknown way": (
        asked(0, STARTING, born=True, pid=7, control_ended=True, status=UNKNOWN),
        anyfork.DiedBeforeReadyError,
        "process 7 ended with an unknown exit status before it entered its function",
    ),
    "a template that is not there any more": (
        asked(adopting=True, control_ended=True, status=UNKNOWN),
        anyfork.TemplateDiedError,
        "the template at the other end of this socket has ended",
    ),
}


@pytest.mark.parametrize(("session", "cls", "text"), WHYS.values(), ids=WHYS)
def test_the_reason_says_what_became_of_the_process(session, cls, text):
    error = session.why("is gone", "")
    assert (type(error), str(error)) == (cls, text)


def test_the_reason_ends_with_what_the_process_wrote():
    session = asked(born=True, pid=7, control_ended=True, status=anyfork.ExitStatus(3))
    error = session.why("", "last words")
    assert isinstance(error, anyfork.TemplateDiedError)
    assert (str(error), error.stderr) == ("template 7 ended with exit code 3; it wrote:\nlast words", "last words")


def test_the_status_of_what_died_goes_with_the_reason():
    session = asked(0, STARTING, born=True, pid=7, control_ended=True, status=anyfork.ExitStatus(3))
    error = session.why("", "")
    assert isinstance(error, anyfork.DiedBeforeReadyError)
    assert error.status == anyfork.ExitStatus(3)


REPORTS = {
    "preload": (anyfork.PreloadError, {"module": "what"}, "module 'what' cannot be imported in the template: why"),
    "execute": (anyfork.ExecuteError, {}, "code given to execute failed in the template: why"),
    "prepare": (anyfork.PrepareError, {}, "prepare(what) failed in the template: why"),
    "threads": (anyfork.UnsafeTemplateError, {"threads": "what"}, "why: what"),
    "fork": (
        anyfork.ForkError,
        {"errno": 11},
        "fork failed in the template: why; end processes, close descriptors, or raise their limits",
    ),
    "descriptors": (
        anyfork.ForkError,
        {"errno": 11},
        "fork failed in the template: why; end processes, close descriptors, or raise their limits",
    ),
    "hook": (anyfork.HookError, {}, "a hook raised in the new process (what): why"),
    "attribute": (
        anyfork.AttributeRefusedError,
        {"attribute": "what", "errno": 11},
        "the new process could not apply what=: why",
    ),
    "interpreter": (anyfork.LaunchError, {"stderr": ""}, "the interpreter 'what' cannot be executed: why"),
    "function": (anyfork.FunctionNotFoundError, {}, "the function was not found in the new process: why"),
    "argument": (
        anyfork.ArgumentDecodeError,
        {},
        "the function or its arguments cannot be decoded in the new process: why",
    ),
    "program": (anyfork.ProgramError, {"program": "what", "errno": 11}, "the program 'what' cannot be executed: why"),
    "protocol": (anyfork.PeerError, {}, "the process received data that is not anyfork's protocol: why"),
    "children": (anyfork.HandleError, {}, "the template cannot be taken over: why"),
}


@pytest.mark.parametrize("category", REPORTS)
def test_a_report_becomes_an_error_of_its_class(category):
    cls, details, text = REPORTS[category]
    error = Report(failed(category, "what", 11).body).error()
    assert (type(error), str(error.args[0])) == (cls, text)
    assert {name: getattr(error, name) for name in details} == details


@pytest.mark.parametrize("category", sorted(set(REPORTS) - {"threads", "fork", "descriptors", "program"}))
def test_a_report_keeps_the_remote_traceback(category):
    assert Report(failed(category, trace="Traceback: there\n").body).error().remote_traceback == "Traceback: there\n"


def test_a_report_makes_a_new_error_each_time():
    report = Report(failed("preload").body)
    assert report.error() is not report.error()


def test_a_report_of_an_unknown_kind_is_not_our_protocol():
    error = Report(failed("no such category").body).error()
    assert isinstance(error, anyfork.PeerError)
    assert "'no such category'" in str(error)

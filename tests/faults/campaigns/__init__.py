"""Campaigns: faults at every point of every operation, instead of where somebody had an idea.

As tests of SQLite fail the first, the second, the third ... allocation, a campaign strikes at the first, the second, the
third ... point of one public operation, and looks after each strike whether what is promised holds:

- ``interrupt``: an exception is raised at the n-th line of anyfork that the owner executes, as a signal handler would;
- ``reenter``: a public operation is called there instead, as a destructor, a callback or a signal handler may;
- ``failure``: the n-th system call of the owner, the template or the child fails, or writes less than it should;
- ``kill``: the owner, the template, the child or a relay is killed, or stopped for a while, after its n-th message;
- ``load``: very many jobs while workers and templates are killed, pools resized and jobs given up;
- ``fuzz``: what comes over sockets is random (with atheris).

``scenes`` are the operations, ``state`` knows what an operation may not leave behind, ``strikes`` and ``shim`` do
harm, ``trials`` tries one operation in a program of its own, ``supervisor`` starts such programs and counts, and
``limits`` lists what is known and cannot be otherwise. ``scripts/campaign`` runs the long form.
"""

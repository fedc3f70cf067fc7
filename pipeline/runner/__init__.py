"""One run, from the open ledger to its exit code: submit, poll, download, callbacks, stop signals."""

"""Another program: its standard output goes into a file, its standard error comes over the channel."""

import tempfile

import anyfork


def main() -> None:
    with tempfile.TemporaryFile("w+") as output:
        template = anyfork.Template().fork(stdin=anyfork.DEVNULL, stdout=output, stderr=anyfork.CHANNEL)
        with template.run_program(["ls", "-d", "/", "/no/such/directory"]) as process:
            with process.channel.makefile() as errors:
                print("on standard error:", errors.read().strip())
            status = process.wait()
        output.seek(0)
        print("in the file:", output.read().strip())
    print("the program", status)


if __name__ == "__main__":
    main()

"""``python -m demo``. Processes of multiprocessing import this module again, so it imports nothing for them."""

if __name__ == "__main__":
    from demo.show import main

    main()

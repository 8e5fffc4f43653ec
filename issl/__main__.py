from issl.cli import main

main()

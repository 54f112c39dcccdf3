"""placeholder"""
FACES = ()

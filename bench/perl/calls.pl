# AnyEvent::Fork::RPC as a contender: the same lines on the same socket as bench/call_owner.py. It has no operator.neg,
# but a function that does the same; strings are what it sends fastest. Its synchronous backend answers.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Contender;

my ($fd) = @ARGV;
my $control = control ($fd, qw(EV AnyEvent AnyEvent::Fork AnyEvent::Fork::RPC));

my $rpc = AnyEvent::Fork->new
   ->eval ('sub neg { -$_[0] }')
   ->AnyEvent::Fork::RPC::run ("neg", on_error => sub { die "$_[0]\n" });

sub one {
   my $answer = AnyEvent->condvar;
   $rpc->(1, $answer);
   $answer->recv
}

sub in_flight {
   my ($seconds) = @_;
   my ($count, $begin, $end) = (0, now, AnyEvent->condvar);
   my $waiting = 0;
   my $next; $next = sub {
      if (now () < $begin + $seconds) {
         ++$count;
         ++$waiting;
         $rpc->(1, sub { --$waiting; $next->(); $end->send unless $waiting });
      }
   };
   $next->() for 1 .. IN_FLIGHT;
   $end->recv;
   undef $next;
   ($count, now () - $begin)
}

one == -1 or die "a wrong answer\n";
answer ($control, sequential => sub { sequential (\&one, @_) }, in_flight => \&in_flight);

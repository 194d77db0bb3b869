"""What every suite shares: a private sandbox, other people's servers, and the report of what was compared."""
